// SPDX-License-Identifier: Apache-2.0
// Rows that the CPU computed, on their way to the device. A kernel reads them, so that they do not
// queue up behind copies of experts in a copy engine.
#pragma once

#include <cstdint>

#include "kernels/cuda/queue.h"

namespace hotset::cuda {

// to[indices[i], :] ← from[indices[i], :] for i < count; rows of `width` floats, 16-byte aligned.
// `from` and `indices` are in mapped host memory.
void fetch_rows(Queue& queue, const float* from, const int32_t* indices, int64_t count,
                int64_t width, float* to);

}  // namespace hotset::cuda
