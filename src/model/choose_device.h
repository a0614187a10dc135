// SPDX-License-Identifier: Apache-2.0
// Which processor a model is loaded for (model_plan.h decides it before weights are read), and what
// follows from that.
#pragma once

#include <cstdint>

namespace hotset {

enum class Device : uint8_t {
  kCpu,
  kCuda,
  kAuto,  // a GPU where there is one that the model fits on, else the CPU
};

// The context a GPU gets when none is asked for: what a sixteenth of the budget holds, at least
// kLeastGpuContext tokens, at most what the model allows.
inline constexpr int64_t kLeastGpuContext = 8192;
[[nodiscard]] int64_t default_gpu_context(int64_t budget_bytes, int64_t kv_token_bytes,
                                          int64_t max_position_embeddings);

}  // namespace hotset
