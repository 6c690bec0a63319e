// The orders in which kernels are tested.
#pragma once

#include <vector>

#include "emulator/emulator.h"

namespace fastltc::emulator {

inline std::vector<Schedule> every_schedule() {
  return {{.blocks = Order::forward, .threads = Order::forward},
          {.blocks = Order::reverse, .threads = Order::reverse},
          {.blocks = Order::random, .threads = Order::random, .seed = 1},
          {.blocks = Order::random, .threads = Order::reverse, .seed = 2},
          {.blocks = Order::random, .threads = Order::forward, .seed = 3}};
}

}  // namespace fastltc::emulator
