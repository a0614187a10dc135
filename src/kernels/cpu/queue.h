// SPDX-License-Identifier: Apache-2.0
// What every CPU operation takes as its first argument: whose threads, which instructions, which
// arithmetic, and where to put intermediate results. A queue belongs to one thread; operations on
// it run at once and are finished when they return.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/arithmetic.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/worker_pool.h"

namespace hotset::cpu {

using hotset::Arithmetic;

// A stack of 64-byte aligned memory that keeps what it once had. Taking more than was reserved
// allocates, which is right but slow; num_allocations() tells.
class Scratch {
 public:
  struct Mark {
    size_t block = 0;
    size_t used = 0;
  };

  void reserve(size_t bytes);  // so that takes up to this sum from empty never allocate
  template <typename T>
  [[nodiscard]] T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }
  [[nodiscard]] Mark mark() const { return top_; }
  void rewind(Mark to) { top_ = to; }  // what was taken since is free again
  [[nodiscard]] int64_t num_allocations() const { return num_allocations_; }

 private:
  struct FreeAligned {
    void operator()(std::byte* data) const;
  };
  struct Block {
    std::unique_ptr<std::byte, FreeAligned> data;
    size_t size = 0;
  };

  void* take_bytes(size_t bytes);

  std::vector<Block> blocks_;
  Mark top_;
  int64_t num_allocations_ = 0;
};

// Frees, on leaving a function, what the function took.
class ScratchScope {
 public:
  explicit ScratchScope(Scratch& scratch) : scratch_(scratch), mark_(scratch.mark()) {}
  ~ScratchScope() { scratch_.rewind(mark_); }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Scratch& scratch_;
  Scratch::Mark mark_;
};

struct Queue {
  WorkerPool& pool;
  Isa isa = Isa::kScalar;
  Arithmetic arithmetic = Arithmetic::kExact;
  Scratch scratch = {};

  // Room for matmul() of up to num_tokens tokens and num_cols columns whose outputs need at most
  // num_inputs differently ordered or grouped copies of the input. For moe_experts() reserve
  // moe_scratch_bytes(); operations do not run at the same time, so the largest need counts.
  void reserve(int64_t num_tokens, int64_t num_cols, int64_t num_inputs = 4);
};

}  // namespace hotset::cpu
