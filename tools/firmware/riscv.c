/* A 32-bit RISC-V without anything, on QEMU's board `virt`: a serial port and a switch. */
#include "machine.h"

extern uint32_t bss_start, bss_end;
int main(void);

void say(const char *text)
{
    for (; *text; ++text) {
        *(volatile uint8_t *)0x10000000u = (uint8_t)*text;
    }
}

uint32_t ticks(void)
{
    uint32_t count;
    __asm__ volatile(".option push\n .option arch, +zicsr\n csrr %0, minstret\n .option pop" : "=r"(count));
    return count;
}

__attribute__((used)) static void begin(void)
{
    uint32_t *word;
    for (word = &bss_start; word < &bss_end; ++word) {
        *word = 0;
    }
    main();
    *(volatile uint32_t *)0x100000u = 0x5555;
    for (;;) {
    }
}

__attribute__((naked, section(".start"), used)) void start(void)
{
    __asm__ volatile("la sp, stack_top\n j begin");
}
