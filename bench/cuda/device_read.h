// SPDX-License-Identifier: Apache-2.0
// A kernel that only reads device memory: the ceiling that memory-bound operations are held
// against.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/queue.h"

namespace hotset::bench {

// Reads `bytes` (a multiple of 16); `sink` gets one float that depends on all of them.
void read_device(cuda::Queue& queue, const std::byte* data, int64_t bytes, float* sink);

}  // namespace hotset::bench
