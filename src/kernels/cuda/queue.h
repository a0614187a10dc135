// SPDX-License-Identifier: Apache-2.0
// What every CUDA operation takes as its first argument: whose stream, which arithmetic, where
// intermediate results go, and the first thing that went wrong. Operations only put work on the
// stream; they never wait, never allocate and never read device memory, so that any sequence of
// them can be recorded as a graph.
//
// After a failure the queue's operations do nothing; the caller looks at `status` once a step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "cuda/device_memory.h"
#include "cuda/runtime.h"
#include "kernels/arithmetic.h"

namespace hotset::cuda {

// A stack of 256-byte aligned device memory, sized once. What an operation takes is free again when
// the operation is on the stream: the next one runs after it.
class Scratch {
 public:
  Scratch() = default;
  static Result<Scratch> create(Runtime& runtime, int64_t bytes);

  // Null when it does not fit; Queue::take reports that.
  [[nodiscard]] std::byte* take(int64_t bytes);
  [[nodiscard]] int64_t used() const { return used_; }
  void rewind(int64_t used) { used_ = used; }
  [[nodiscard]] int64_t most_used() const { return most_used_; }
  [[nodiscard]] int64_t size() const { return memory_.size(); }

 private:
  DeviceMemory memory_;
  int64_t used_ = 0;
  int64_t most_used_ = 0;
};

struct Queue {
  Runtime& runtime;
  Stream stream = {};
  Arithmetic arithmetic = Arithmetic::kFast;
  Scratch scratch = {};
  Status status = {};

  [[nodiscard]] int num_sms() const { return runtime.info().num_sms; }
  // Keeps the first failure.
  void note(Status result) {
    if (status && !result) status = std::move(result);
  }
  // Null, and a failed status, when the scratch is too small for the plan's largest step.
  template <typename T>
  [[nodiscard]] T* take(int64_t count) {
    std::byte* data = scratch.take(count * static_cast<int64_t>(sizeof(T)));
    if (data == nullptr) note_scratch_exhausted(count * static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(data);
  }
  void note_scratch_exhausted(int64_t bytes);
};

// Frees, on leaving a function, what the function took.
class ScratchScope {
 public:
  explicit ScratchScope(Queue& queue) : scratch_(queue.scratch), used_(queue.scratch.used()) {}
  ~ScratchScope() { scratch_.rewind(used_); }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Scratch& scratch_;
  int64_t used_;
};

}  // namespace hotset::cuda
