/* A Cortex-M without anything: vectors, the tick counter, and a debugger that listens. */
#include "machine.h"

extern uint32_t stack_top, bss_start, bss_end;
int main(void);

static uint32_t debugger(uint32_t call, const void *argument)
{
    register uint32_t r0 __asm__("r0") = call;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void say(const char *text)
{
    debugger(4, text);
}

/* SysTick counts down from 2^24. */
uint32_t ticks(void)
{
    return 0xffffffu - *(volatile uint32_t *)0xe000e018u;
}

static void start(void)
{
    uint32_t *word;
    for (word = &bss_start; word < &bss_end; ++word) {
        *word = 0;
    }
#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88u |= 0xf00000u;
    __asm__ volatile("dsb\n isb");
#endif
    *(volatile uint32_t *)0xe000e014u = 0xffffffu;
    *(volatile uint32_t *)0xe000e018u = 0;
    *(volatile uint32_t *)0xe000e010u = 5;
    main();
    debugger(0x18, (const void *)0x20026);
}

static void fault(void)
{
    say("fault\n");
    debugger(0x18, (const void *)0x20026);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))(uintptr_t)&stack_top, start, fault, fault, fault, fault, fault,
};
