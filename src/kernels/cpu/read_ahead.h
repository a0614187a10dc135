// SPDX-License-Identifier: Apache-2.0
// Weights of experts that will probably be asked for next, brought into the threads' own caches
// while they wait for the request: beside a GPU, memory would be idle then.
//
// It pays because moe_experts, with few tokens, gives the same tiles of an expert to the same
// thread whatever else was chosen: what a thread reads here it finds in its L2 cache. A line from
// another core's cache is no faster than one from memory (measured, docs/decisions/0016).
//
// Threads: plan() and WorkerPool::offer() are called by the pool's caller between two run()s, after
// one run() since the last plan(); piece() by any worker, in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/matmul_inputs.h"
#include "kernels/cpu/prefetch.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/moe.h"

namespace hotset::cpu {

// A thread's own tiles of an expert's matrix. Neighbouring experts start with neighbouring threads.
[[nodiscard]] inline Range owned_tiles(int64_t expert, int64_t num_tiles, int worker,
                                       int num_workers) {
  return even_share(num_tiles, static_cast<int>((worker + expert) % num_workers), num_workers);
}

class ReadAhead final : public IdleWork {
 public:
  // Of a thread's cache, half is used.
  explicit ReadAhead(int num_threads);

  // `experts`, of one layer, and `ids`, likeliest first, each once, outlive the next run().
  void plan(std::span<const ExpertView> experts, std::span<const int32_t> ids);
  // Asks for a little of what is this worker's. False: there is nothing left, or no room.
  bool piece(int worker) override;

 private:
  struct alignas(64) Reader {
    uint32_t plan = 0;
    size_t matrix = 0;  // of the next run: gate, up and down of each expert
    RunPrefetcher prefetch{0};
  };
  [[nodiscard]] std::span<const std::byte> share(size_t matrix, int worker) const;

  int num_threads_;
  int64_t cache_bytes_;
  uint32_t plan_ = 0;
  std::span<const ExpertView> experts_;
  std::span<const int32_t> ids_;
  std::vector<Reader> readers_;
};

}  // namespace hotset::cpu
