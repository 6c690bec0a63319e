// Subnormal numbers as zeros.
//
// Gradients that go back through saturated gates shrink below the smallest normal number (1.2e-38 in
// single precision, 2.2e-308 in double), where each operation takes a processor many times as long:
// the backward pass of a trained CfC took five times that of a new one (docs/numerics.md).
#pragma once

#include <cstdint>

namespace fastltc::cpu::FASTLTC_ISA {

// While one lives, this thread reads and writes zero in place of subnormal numbers.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(control()) { set_control(before_ | kFlush); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;
  ~FlushSubnormals() { set_control(before_); }

 private:
#if defined(__SSE2__)
  using Control = uint32_t;
  // FTZ, for results, and DAZ, for operands.
  static constexpr Control kFlush = 0x8040;
  static Control control() { return __builtin_ia32_stmxcsr(); }
  static void set_control(Control value) { __builtin_ia32_ldmxcsr(value); }
#elif defined(__aarch64__)
  using Control = uint64_t;
  // FZ, for both.
  static constexpr Control kFlush = Control{1} << 24;
  static Control control() {
    Control value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set_control(Control value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
#else
  using Control = uint32_t;
  static constexpr Control kFlush = 0;
  static Control control() { return 0; }
  static void set_control(Control) {}
#endif

  Control before_;
};

}  // namespace fastltc::cpu::FASTLTC_ISA
