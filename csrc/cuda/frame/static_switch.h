// Runtime values to template arguments.
#pragma once

#include <type_traits>

namespace fastltc::cuda {

template <auto value>
using Constant = std::integral_constant<decltype(value), value>;

// Calls run with the constant that equals `value`, the last one if none does.
template <auto first, auto... others, typename Run>
void static_switch(decltype(first) value, const Run& run) {
  if constexpr (sizeof...(others) > 0) {
    if (value != first) return static_switch<others...>(value, run);
  }
  run(Constant<first>());
}

}  // namespace fastltc::cuda
