/* What main.c asks of an emulated machine. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdint.h>

uint32_t ticks(void); /* grows with the instructions that have run */
void say(const char *text);

#endif
