/* Runs a model on data.h and says what came out and how many instructions a step took. */
#include "data.h"
#include "machine.h"
#include "model.h"

static void say_hexadecimal(uint32_t x)
{
    char text[10] = "00000000 ";
    int digit;
    for (digit = 7; digit >= 0; --digit, x >>= 4) {
        text[digit] = "0123456789abcdef"[x & 15];
    }
    say(text);
}

int main(void)
{
    static model_state state;
    static union {
        value value[STEPS][MODEL_OUTPUT_SIZE];
        uint32_t bits[1];
    } output;
    uint32_t took = 0;
    int t;
    model_reset(&state);
    for (t = 0; t < STEPS; ++t) {
        const uint32_t start = ticks();
        model_step(&state, inputs[t], timespans[t], output.value[t]);
        took += (ticks() - start) & MOST_TICKS;
    }
    say_hexadecimal(took);
    for (t = 0; t < STEPS * MODEL_OUTPUT_SIZE; ++t) {
        say_hexadecimal(sizeof(value) == 4 ? output.bits[t]
            : (uint32_t)(int32_t)((int16_t *)output.value)[t]);
    }
    say("\n");
    return 0;
}
