// SPDX-License-Identifier: Apache-2.0
// Which processor a model is loaded for, decided before its weights are read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "cuda/runtime.h"

namespace hotset {

enum class Device : uint8_t {
  kCpu,
  kCuda,
  kAuto,  // a GPU where there is one that the model's dense part fits on, else the CPU
};

struct DeviceChoice {
  std::unique_ptr<cuda::Runtime> runtime;  // null: the CPU
  std::string why_cpu;                     // after kAuto chose it
};

// `dense_bytes`: all weights that are no routed experts, less the embedding table.
// `gpu_memory_bytes`: 0 for what is free. kCuda fails where kAuto would choose the CPU.
Result<DeviceChoice> choose_device(Device device, int gpu, int64_t gpu_memory_bytes,
                                   int64_t dense_bytes);

// The context a GPU gets when none is asked for: what a sixteenth of the budget holds, at least
// 8,192 tokens, at most what the model allows.
[[nodiscard]] int64_t default_gpu_context(int64_t budget_bytes, int64_t kv_token_bytes,
                                          int64_t max_position_embeddings);

}  // namespace hotset
