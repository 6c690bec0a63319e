// Barriers, and shuffles, which are barriers of a warp, too.
#include <algorithm>

#include "emulator/grid.h"

namespace fastltc::emulator {
namespace {

const char* state_text(State state) {
  switch (state) {
    case State::at_sync_threads:
      return "__syncthreads";
    case State::at_sync_warp:
      return "__syncwarp";
    case State::at_shuffle:
      return "a shuffle";
    case State::at_cluster_wait:
      return "the barrier of the cluster";
    case State::ended:
      return "the end";
    default:
      return "nothing";
  }
}

std::string waiting_text(const Block& block) {
  std::string text;
  const State states[] = {State::at_sync_threads, State::at_sync_warp, State::at_shuffle,
                          State::at_cluster_wait, State::ended};
  for (const State state : states) {
    int count = 0, first = -1;
    for (const Thread& thread : block.threads) {
      if (thread.state != state) continue;
      ++count;
      if (first < 0) first = thread.index;
    }
    if (count == 0) continue;
    text += "; " + std::to_string(count) + " threads (first: " + std::to_string(first) +
            (state == State::ended ? ") have reached " : ") wait at ") + state_text(state);
  }
  return text;
}

void count_barrier(Block& block) {
  if (!is_counting()) return;
  for (Warp& warp : block.warps) warp.counter.barrier();
}

void release_block(Block& block) {
  block.arrived = 0;
  ++block.epoch;
  count_barrier(block);
  for (Thread& thread : block.threads) {
    if (thread.state != State::at_sync_threads) continue;
    make_ready(thread);
  }
  for (Warp& warp : block.warps) order_lanes(warp.ready);
}

// Once all threads of a cluster have arrived.
void release_cluster(Cluster& cluster) {
  cluster.arrived = 0;
  ++cluster.completed;
  for (const auto& block : cluster.blocks) {
    bool any = false;
    for (Thread& thread : block->threads) {
      if (thread.state != State::at_cluster_wait) continue;
      make_ready(thread);
      any = true;
    }
    if (any) count_barrier(*block);
    for (Warp& warp : block->warps) {
      if (any) order_lanes(warp.ready);
    }
  }
}

void arrive_at_warp(uint32_t mask, State state) {
  Thread& thread = *current;
  Block& block = *thread.block;
  const int first = thread.index / kWarp * kWarp;
  const int own = thread.index - first;
  Warp& warp = block.warps[thread.index / kWarp];
  const int size = std::min<int>(kWarp, static_cast<int>(block.threads.size()) - first);
  if ((mask >> own & 1) == 0) fail(block, "a lane is not in the mask that it gives");
  thread.mask = mask;
  thread.state = state;
  warp.arrived |= 1u << own;
  const uint32_t existing = size == kWarp ? ~0u : (1u << size) - 1;
  const uint32_t wanted = mask & existing;
  if ((warp.arrived & wanted) == wanted) {
    for (int k = 0; k < size; ++k) {
      if ((wanted >> k & 1) == 0) continue;
      const Thread& other = block.threads[first + k];
      if (other.state != state || other.mask != mask) {
        fail(block, "lanes of warp " + std::to_string(first / kWarp) +
                        " wait for each other at different places or with different masks");
      }
    }
    uint64_t got[kWarp] = {};
    for (int k = 0; k < size && state == State::at_shuffle; ++k) {
      if ((wanted >> k & 1) == 0) continue;
      const int source = block.threads[first + k].source;
      if (source < 0 || source >= size || (wanted >> source & 1) == 0) {
        fail(block, "a shuffle asks for the value of lane " + std::to_string(source) +
                        ", which does not take part");
      }
      got[k] = block.threads[first + source].value;
    }
    for (int k = 0; k < size; ++k) {
      if ((wanted >> k & 1) == 0) continue;
      Thread& other = block.threads[first + k];
      other.value = got[k];
      make_ready(other);
    }
    order_lanes(warp.ready);
    warp.arrived &= ~wanted;
    if (is_counting()) {
      if (state == State::at_shuffle) {
        warp.counter.shuffle();
      } else {
        warp.counter.barrier();
      }
    }
    // Only __syncwarp orders accesses to memory; a shuffle does not.
    if (state == State::at_sync_warp) ++warp.epoch;
  }
  suspend();
}

}  // namespace

void fail(const Block& block, const std::string& what) {
  throw Error(what + " in block " + std::to_string(block.index) + waiting_text(block));
}

void end_thread() {
  Thread& thread = *current;
  Block& block = *thread.block;
  Cluster& cluster = *block.cluster;
  thread.state = State::ended;
  --block.live;
  --cluster.live;
  // A barrier waits for the threads that have not ended.
  if (block.live > 0 && block.arrived == block.live) release_block(block);
  if (thread.arrivals > cluster.completed) --cluster.arrived;
  if (cluster.live > 0 && cluster.arrived == cluster.live) release_cluster(cluster);
}

void sync_threads() {
  const OutOfKernel out;
  Block& block = *current->block;
  current->state = State::at_sync_threads;
  if (++block.arrived == block.live) release_block(block);
  suspend();
}

void sync_warp(uint32_t mask) {
  const OutOfKernel out;
  arrive_at_warp(mask, State::at_sync_warp);
}

uint64_t exchange(uint32_t mask, uint64_t value, int source) {
  const OutOfKernel out;
  Thread& thread = *current;
  thread.value = value;
  thread.source = source;
  arrive_at_warp(mask, State::at_shuffle);
  return thread.value;
}

void cluster_arrive() {
  const OutOfKernel out;
  Thread& thread = *current;
  Cluster& cluster = *thread.block->cluster;
  if (thread.arrivals > thread.waits) {
    fail(*thread.block, "a thread arrives twice at the barrier of its cluster without waiting");
  }
  ++thread.arrivals;
  if (++cluster.arrived == cluster.live) release_cluster(cluster);
}

void cluster_wait() {
  const OutOfKernel out;
  Thread& thread = *current;
  if (thread.arrivals == thread.waits) {
    fail(*thread.block, "a thread waits for the barrier of its cluster without arriving");
  }
  if (thread.block->cluster->completed < thread.arrivals) {
    thread.state = State::at_cluster_wait;
    suspend();
  }
  ++thread.waits;
}

}  // namespace fastltc::emulator
