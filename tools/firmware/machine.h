/* What main.c asks of an emulated machine. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdint.h>

/* Grows with the instructions that have run, and begins again after the most. */
uint32_t ticks(void);
#ifdef __arm__
#define MOST_TICKS 0xffffffu
#else
#define MOST_TICKS 0xffffffffu
#endif

void say(const char* text);

#endif
