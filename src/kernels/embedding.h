// SPDX-License-Identifier: Apache-2.0
// Rows of the embedding table for a list of tokens: out[t, :] = table[ids[t], :], widened to fp32.
#pragma once

#include <cstdint>
#include <span>

#include "quant/packed_matrix.h"

namespace hotset {

namespace cpu {
struct Queue;
}
namespace cuda {
struct Queue;
}

// out: [ids.size(), table.cols]. Requires 0 <= id < table.rows for each id.
void embed(cpu::Queue& queue, const PackedMatrix& table, std::span<const int32_t> ids, float* out);
// ids in device memory.
void embed(cuda::Queue& queue, const PackedMatrix& table, std::span<const int32_t> ids, float* out);

}  // namespace hotset
