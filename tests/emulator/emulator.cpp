#include "emulator/emulator.h"

#include <algorithm>
#include <bit>
#include <exception>
#include <memory>
#include <random>
#include <vector>

#include "emulator/counts.h"
#include "emulator/grid.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace fastltc::emulator {

unsigned cluster_blocks = 1;
Thread* current = nullptr;
std::exception_ptr failure;
Shadows shadows;
bool in_kernel = false;

namespace {

Schedule schedule;
std::mt19937_64 generator;
const std::function<void()>* kernel = nullptr;

void run_thread() {
  try {
    in_kernel = true;
    (*kernel)();
    in_kernel = false;
  } catch (...) {
    in_kernel = false;
    if (!failure) failure = std::current_exception();
  }
  end_thread();
  suspend();
}

std::unique_ptr<Block> make_block(Cluster& cluster, unsigned rank, std::size_t shared_bytes,
                                  std::size_t stack) {
  auto block = std::make_unique<Block>();
  const int64_t index = cluster.index * cluster_blocks + rank;
  block->cluster = &cluster;
  block->rank = rank;
  block->index = index;
  block->block_idx = {static_cast<unsigned>(index % gridDim.x),
                      static_cast<unsigned>(index / gridDim.x % gridDim.y),
                      static_cast<unsigned>(index / gridDim.x / gridDim.y)};
  add_shared_memory(*block, nullptr, shared_bytes);
  const int count = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  block->threads.resize(count);
  block->warps.resize((count + kWarp - 1) / kWarp);
  block->live = count;
  for (int k = 0; k < count; ++k) {
    Thread& thread = block->threads[k];
    thread.block = block.get();
    thread.index = k;
    thread.thread_idx = {k % blockDim.x, k / blockDim.x % blockDim.y, k / blockDim.x / blockDim.y};
    prepare(thread.fiber, stack + k, &run_thread);
    make_ready(thread);
  }
  for (Warp& warp : block->warps) order_lanes(warp.ready);
  return block;
}

std::unique_ptr<Cluster> make_cluster(int64_t index, std::size_t shared_bytes, std::size_t stack) {
  auto cluster = std::make_unique<Cluster>();
  cluster->index = index;
  for (unsigned rank = 0; rank < cluster_blocks; ++rank) {
    auto block = make_block(*cluster, rank, shared_bytes, stack);
    stack += block->threads.size();
    cluster->live += block->live;
    cluster->blocks.push_back(std::move(block));
  }
  return cluster;
}

Thread* next_ready(Block& block) {
  if (block.ready == 0) return nullptr;
  const std::size_t count = block.warps.size();
  const int first = schedule.threads == Order::random ? static_cast<int>(generator() % count) : 0;
  int w = 31 - std::countl_zero(block.ready);
  if (schedule.threads != Order::reverse) {
    const uint32_t behind = block.ready >> first << first;
    w = std::countr_zero(behind != 0 ? behind : block.ready);
  }
  std::vector<Thread*>& ready = block.warps[w].ready;
  Thread* const thread = ready.back();
  ready.pop_back();
  if (ready.empty()) block.ready &= ~(1u << w);
  return thread;
}

void end_block(Block& block) {
  for (Warp& warp : block.warps) {
    if (is_counting()) warp.counter.end();
  }
  if (block.cluster->blocks.size() > 1) end_shared_memory(block);
}

// Of the resident blocks the one that has its turn, and its thread; null: none can run.
Thread* next_ready(const std::vector<std::unique_ptr<Cluster>>& clusters) {
  const std::size_t count = clusters.size() * cluster_blocks;
  const bool reverse = schedule.blocks == Order::reverse;
  const std::size_t first = schedule.blocks == Order::random && count > 1 ? generator() % count : 0;
  for (std::size_t k = 0; k < count; ++k) {
    const std::size_t at = reverse ? count - 1 - k : (first + k) % count;
    Block& block = *clusters[at / cluster_blocks]->blocks[at % cluster_blocks];
    if (Thread* const thread = next_ready(block)) return thread;
  }
  return nullptr;
}

void run_clusters(std::vector<std::unique_ptr<Cluster>>& clusters) {
  while (!clusters.empty()) {
    Thread* const thread = next_ready(clusters);
    if (thread == nullptr) {
      for (const auto& block : clusters[0]->blocks) {
        if (block->live > 0) fail(*block, "deadlock");
      }
    }
    Block& block = *thread->block;
    Cluster& cluster = *block.cluster;
    current = thread;
    threadIdx = thread->thread_idx;
    blockIdx = block.block_idx;
    resume(thread->fiber);
    current = nullptr;
    if (failure) std::rethrow_exception(failure);
    if (block.live > 0) continue;
    end_block(block);
    if (cluster.live > 0) continue;
    forget_shared_memory(cluster);
    std::erase_if(clusters, [&](const auto& other) { return other.get() == &cluster; });
  }
}

// Threads of the grid as they are now: nothing of the launch may outlive it.
struct Launched {
  ~Launched() {
    kernel = nullptr;
    failure = nullptr;
    current = nullptr;
    in_kernel = false;
    shadows.clear();
  }
};

}  // namespace

void suspend() { suspend(current->state == State::ended); }

void make_ready(Thread& thread) {
  const int warp = thread.index / kWarp;
  thread.state = State::ready;
  thread.block->warps[warp].ready.push_back(&thread);
  thread.block->ready |= 1u << warp;
}

void order_lanes(std::vector<Thread*>& lanes) {
  if (schedule.threads == Order::reverse) {
    std::sort(lanes.begin(), lanes.end(), [](auto* a, auto* b) { return a->index < b->index; });
  } else if (schedule.threads == Order::forward) {
    std::sort(lanes.begin(), lanes.end(), [](auto* a, auto* b) { return a->index > b->index; });
  } else {
    std::shuffle(lanes.begin(), lanes.end(), generator);
  }
}

void set_schedule(const Schedule& wanted) {
  schedule = wanted;
  generator.seed(wanted.seed);
}

void launch(const void* function, dim3 grid, dim3 block, unsigned cluster, std::size_t shared_bytes,
            const std::function<void()>& body) {
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  const int64_t threads = static_cast<int64_t>(block.x) * block.y * block.z;
  if (current != nullptr) throw Error("a kernel is launched from a kernel");
  if (blocks == 0 || threads == 0) throw Error("a launch of no blocks or no threads");
  if (grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu) {
    throw Error("a grid larger than a device takes");
  }
  if (threads > 1024) throw Error("more than 1024 threads in a block");
  if (cluster == 0 || cluster > 8) throw Error("clusters have 1 to 8 blocks");
  if (grid.x % cluster != 0) throw Error("a grid of no whole number of clusters");
  const Launched launched;
  set_launch_stack(__builtin_frame_address(0));
  count_launch(function, blocks * ((threads + kWarp - 1) / kWarp));
  gridDim = grid;
  blockDim = block;
  cluster_blocks = cluster;
  kernel = &body;
  const int64_t clusters = blocks / cluster;
  std::vector<std::unique_ptr<Cluster>> resident;
  if (schedule.blocks == Order::random) {
    std::vector<int64_t> order(clusters);
    for (int64_t k = 0; k < clusters; ++k) order[k] = k;
    std::shuffle(order.begin(), order.end(), generator);
    const int64_t at_once = cluster == 1 ? schedule.resident : 2;
    for (int64_t k = 0; k < clusters; k += at_once) {
      const int64_t count = std::min<int64_t>(at_once, clusters - k);
      for (int64_t n = 0; n < count; ++n) {
        resident.push_back(make_cluster(order[k + n], shared_bytes, n * cluster * threads));
      }
      run_clusters(resident);
    }
    return;
  }
  for (int64_t k = 0; k < clusters; ++k) {
    const int64_t index = schedule.blocks == Order::reverse ? clusters - 1 - k : k;
    resident.push_back(make_cluster(index, shared_bytes, 0));
    run_clusters(resident);
  }
}

unsigned cluster_rank() { return current->block->rank; }
unsigned cluster_size() { return cluster_blocks; }

int lane() { return current->index % kWarp; }

void count_special(int operations) {
  if (!is_counting() || current == nullptr) return;
  const OutOfKernel out;
  current->block->warps[current->index / kWarp].counter.special(lane(), operations);
}

}  // namespace fastltc::emulator
