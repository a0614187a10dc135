// SPDX-License-Identifier: Apache-2.0
// The 16 entries of a codebook in whole numbers of one byte, and how nibbles are looked up in them.
#pragma once

#include "kernels/codebook.h"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/warp.cuh"

namespace hotset::cuda {

// A codebook in whole numbers, entry ≈ step · code: the lower and the upper half, four codes a
// word.
struct alignas(16) Codebook {
  uint32_t codes[4];
  float step;
};
// The same, such that two permutations of bytes and a second product stand for the choice between
// the halves. A permutation by nibbles whose highest bit is set gives the sign of the byte that the
// others choose: 0 or −1. So that byte i of the one half holds its code less the sign of the
// other's byte i, and the sum of what the two halves give is the code.
struct alignas(16) CodebookTables {
  uint32_t codes[4];
  float step;
};

struct CodebookLane {
  int code;  // of entry lane % 16
  float step;
};
__device__ inline CodebookLane rounded_codebook(const TileLayout& f, int lane) {
  const float entry = __ldg(f.codebook + lane % 16);
  const float most =
      __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(entry) & 0x7fffffffu));
  const float step = most > 0 ? __fdiv_rn(most, static_cast<float>(kCodebookSteps)) : 1.0f;
  const int rounded = __float2int_rn(__fdiv_rn(entry, step));
  return {min(kCodebookSteps, max(-kCodebookSteps, rounded)), step};
}
// Byte lane % 16 of the words to all lanes.
__device__ inline void gather_bytes(int byte, int lane, uint32_t (&words)[4]) {
  uint32_t word = (static_cast<uint32_t>(byte) & 0xffu) << (8 * (lane % 4));
  word |= __shfl_xor_sync(kAllLanes, word, 1);
  word |= __shfl_xor_sync(kAllLanes, word, 2);
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = __shfl_sync(kAllLanes, word, 4 * i);
}

template <CodeKind kCode>
__device__ inline Codebook load_codebook(const TileLayout& f, int lane) {
  Codebook book = {};
  book.step = 1.0f;
  if constexpr (kCode == CodeKind::kCodebook4) {
    const CodebookLane mine = rounded_codebook(f, lane);
    book.step = mine.step;
    gather_bytes(mine.code, lane, book.codes);
  }
  return book;
}

template <CodeKind kCode>
__device__ inline CodebookTables load_tables(const TileLayout& f, int lane) {
  CodebookTables tables = {};
  tables.step = 1.0f;
  if constexpr (kCode == CodeKind::kCodebook4) {
    const CodebookLane mine = rounded_codebook(f, lane);
    const int other = __shfl_xor_sync(kAllLanes, mine.code, 8);
    const bool is_upper = lane % 16 >= 8;
    const int lower = is_upper ? other : mine.code, upper = is_upper ? mine.code : other;
    const bool upper_sign = upper < -1 || (upper == -1 && lower >= 0);
    const bool lower_sign = lower + (upper_sign ? 1 : 0) < 0;
    tables.step = mine.step;
    gather_bytes(mine.code + ((is_upper ? lower_sign : upper_sign) ? 1 : 0), lane, tables.codes);
  }
  return tables;
}

// Bytes of {low, high} by the four lowest nibbles of `by`; where the highest bit of one is set, the
// byte's sign.
__device__ inline uint32_t permuted(uint32_t low, uint32_t high, uint32_t by) {
  uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(by));
  return bytes;
}

// Codes of the 8 nibbles of `nibbles`: columns 0–3 and 4–7.
__device__ inline uint2 look_up(const uint32_t (&codes)[4], uint32_t nibbles) {
  const uint32_t index = nibbles & 0x77777777u;
  const uint32_t upper_half = 0x32103210u | ((nibbles >> 1) & 0x44444444u);
  const auto four = [&](uint32_t at, uint32_t half) {
    return permuted(permuted(codes[0], codes[1], at), permuted(codes[2], codes[3], at), half);
  };
  const uint32_t a = four(index, upper_half);              // columns 0, 4, 1, 5
  const uint32_t b = four(index >> 16, upper_half >> 16);  // columns 2, 6, 3, 7
  return {permuted(a, b, 0x6420), permuted(a, b, 0x7531)};
}

}  // namespace hotset::cuda
