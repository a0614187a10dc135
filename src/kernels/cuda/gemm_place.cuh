// SPDX-License-Identifier: Apache-2.0
// Which part of a many-token product a block does: rows of one matrix, or of one expert's, against
// a run of tokens or of slots.
#pragma once

#include "kernels/cuda/matmul_launch.h"

namespace hotset::cuda {

struct GemmPlace {
  const std::byte* data = nullptr;  // null: nothing to do
  const int32_t* order = nullptr;
  int64_t slot_begin = 0;
  int count = 0;
  const std::byte* up = nullptr;  // of the same expert, beside its gate
};

__device__ inline const std::byte* matrix_of(const ExpertAddress& address, int which) {
  return which == 0 ? address.gate : which == 1 ? address.up : address.down;
}

// `block` counts runs of up to `tokens` tokens.
__device__ inline GemmPlace gemm_place(const GemmArgs& args, int block, int tokens) {
  if (args.chunks == nullptr) {
    const int64_t begin = static_cast<int64_t>(block) * tokens;
    const int64_t left = args.num_tokens - begin;
    return {args.weight.data, args.weight.order, begin,
            left < tokens ? static_cast<int>(left) : tokens};
  }
  const int index = args.chunk_range[0] + block;
  if (index >= args.chunk_range[1]) return {};
  const ExpertChunk chunk = args.chunks[index];
  const int32_t* order = args.weight.order;
  if (args.orders != nullptr)
    order = args.orders[3 * (chunk.expert - args.first_expert) + args.which];
  const ExpertAddress& address = args.addresses[chunk.expert];
  return {matrix_of(address, args.which) + args.first_byte, order, chunk.slot_begin, chunk.count,
          address.up};
}

__device__ inline int64_t input_row(const GemmArgs& args, int64_t slot) {
  return args.row_of != nullptr ? args.row_of[slot] : slot;
}
__device__ inline int64_t output_row(const GemmArgs& args, int64_t slot) {
  return args.to_row != nullptr ? args.to_row[slot] : slot;
}

}  // namespace hotset::cuda
