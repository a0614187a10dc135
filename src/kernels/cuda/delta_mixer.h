// SPDX-License-Identifier: Apache-2.0
// What the CUDA overload of delta_mixer() takes from its queue's scratch. Of DeltaMixerBuffers it
// uses mixed, beta and decay.
#pragma once

#include <cstdint>

#include "kernels/delta_net.h"

namespace hotset::cuda {

// Scratch that delta_mixer takes for steps up to this many tokens a sequence.
[[nodiscard]] int64_t delta_mixer_scratch_bytes(const DeltaNetShape& shape, int64_t max_tokens);

}  // namespace hotset::cuda
