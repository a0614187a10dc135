// SPDX-License-Identifier: Apache-2.0
// What a GPU can do at best, for speed to be held against: reading its memory and nothing else,
// integer products of tensor cores out of registers and nothing else, a kernel that does nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/queue.h"

namespace hotset::cuda {

// Reads `bytes` (a multiple of 16). `sink`: device; written in a case that does not come up.
void probe_read(Queue& queue, const std::byte* data, int64_t bytes, float* sink);

// Multiplies int8 in registers; returns how many operations that are, two for each product.
double probe_products(Queue& queue, int32_t rounds, float* sink);

void probe_launch(Queue& queue, float* sink);

}  // namespace hotset::cuda
