// Kernels whose blocks do different things, which spares launches: each thing has a range of blocks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/frame/device.h"

namespace fastltc::cuda {

// Where a block stands in its range: x and y, and how many there are in y.
struct RangePlace {
  int64_t x = 0, y = 0;
  int64_t count_y = 1;
};

struct BlockRange {
  int64_t begin = 0, x = 0, y = 0;

  FASTLTC_DEVICE bool has(int64_t block) const { return block >= begin && block < begin + x * y; }
  FASTLTC_DEVICE RangePlace at(int64_t block) const {
    const auto own = static_cast<uint32_t>(block - begin), across = static_cast<uint32_t>(x);
    return {own % across, own / across, y};
  }
};

// Hands out ranges behind each other; `blocks` of them in all.
struct BlockRanges {
  int64_t blocks = 0;

  // In y no more than a grid has: blocks go on where they end.
  BlockRange take(int64_t x, int64_t y) {
    const BlockRange range{blocks, x, std::min<int64_t>(y, 65535)};
    blocks += range.x * range.y;
    return range;
  }
};

}  // namespace fastltc::cuda
