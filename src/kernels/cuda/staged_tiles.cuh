// SPDX-License-Identifier: Apache-2.0
// Tiles on their way through shared memory, for kernels that a few tokens keep waiting more than
// computing: a warp asks for all it has room for before it needs the first byte, in runs of bytes
// as they lie, so that neither the encoding nor its registers decide how much is under way. The
// arithmetic is that of tile_products.cuh, for groups of whole sub-blocks only: that saves most of
// its instructions, which is what such kernels are made of once memory no longer waits.
#pragma once

#include "kernels/cuda/tile_products.cuh"

namespace hotset::cuda {

inline constexpr int kMaxStages = 4;

// A tile in pieces of about a KiB: whole groups, or a few sub-blocks of the only group, whose dot
// products are then added up in order by who joins. The ring of a warp holds `stages` of them.
struct PieceCut {
  int32_t groups = 1;
  int32_t subs = 0;   // not 0: of the only group
  int32_t begin = 0;  // where the first piece lies in a tile
  int32_t bytes = 0;
  int32_t count = 0;  // in a tile
  int32_t stages = 1;
};

// 16 bytes a lane at a time; both ends and `bytes` are multiples of 16.
__device__ inline void copy_to_shared(std::byte* to, const std::byte* from, int bytes, int lane) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
#pragma unroll 1
  for (int i = 16 * lane; i < bytes; i += 16 * kWarp) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at + static_cast<uint32_t>(i)),
                 "l"(from + i)
                 : "memory");
  }
}
__device__ inline void end_of_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// All but the last `pending` groups of copies have arrived.
__device__ inline void wait_for_copies(int pending) {
  switch (pending) {
    case 3:
      asm volatile("cp.async.wait_group 3;" ::: "memory");
      break;
    case 2:
      asm volatile("cp.async.wait_group 2;" ::: "memory");
      break;
    case 1:
      asm volatile("cp.async.wait_group 1;" ::: "memory");
      break;
    default:
      asm volatile("cp.async.wait_group 0;" ::: "memory");
      break;
  }
}

// Rounds a row of `cols` columns (a multiple of 4) to num_subs sub-blocks, as round_sub_block()
// does: a warp has four sub-blocks at a time, a lane four columns. `warp` of `num_warps`.
__device__ inline void round_whole_row(const float* x, int cols, int num_subs, int warp,
                                       int num_warps, int lane, int8_t* q, float* meta) {
#pragma unroll 1
  for (int first = 4 * warp; first < num_subs; first += 4 * num_warps) {
    const int col = kSubBlock * first + 4 * lane, sub = first + lane / 8;
    float4 v = {};
    if (col < cols) v = *reinterpret_cast<const float4*>(x + col);
    const auto size = [](float f) { return __float_as_uint(f) & 0x7fffffffu; };
    unsigned bits = max(max(size(v.x), size(v.y)), max(size(v.z), size(v.w)));
#pragma unroll
    for (int step = 1; step < 8; step *= 2) {
      bits = max(bits, __shfl_xor_sync(kAllLanes, bits, step));
    }
    const bool finite = bits < 0x7f800000u, counts = finite && bits >= 0x08000000u;
    const float most = counts ? __uint_as_float(bits) : 1.0f;
    const float inverse = __fdiv_rn(127.0f, most);
    const auto round = [&](float f) { return counts ? __float2int_rn(__fmul_rn(f, inverse)) : 0; };
    const int a = round(v.x), b = round(v.y), c = round(v.z), d = round(v.w);
    int sum = (a + b) + (c + d);
#pragma unroll
    for (int step = 1; step < 8; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    if (sub >= num_subs) continue;
    const unsigned low = __byte_perm(static_cast<unsigned>(a), static_cast<unsigned>(b), 0x0040);
    const unsigned high = __byte_perm(static_cast<unsigned>(c), static_cast<unsigned>(d), 0x0040);
    *reinterpret_cast<unsigned*>(q + col) = __byte_perm(low, high, 0x5410);
    if (lane % 8 == 0) {
      const float none = finite ? 0.0f : __uint_as_float(0x7fc00000u);
      *reinterpret_cast<float2*>(meta + 2 * sub) = {counts ? __fdiv_rn(most, 127.0f) : none,
                                                    static_cast<float>(sum)};
    }
  }
}

// A lane's codes of a sub-block in shared memory.
template <CodeKind kCode>
__device__ inline LaneCodes<kCode> staged_codes(const std::byte* sub, int lane) {
  LaneCodes<kCode> codes;
#pragma unroll
  for (int w = 0; w < (kCode == CodeKind::kInt8 ? 2 : 1); ++w) {
    codes.words[w] = *reinterpret_cast<const uint2*>(sub + lane_code_offset<kCode>(lane, w));
  }
  return codes;
}

__device__ inline StoredRows staged_rows(const TileLayout& f, const std::byte* group, int lane) {
  const int pair = lane / 4;
  StoredRows rows = {};
  if (f.scale == ScaleKind::kF32) {
    rows.scale = *(reinterpret_cast<const uint2*>(group) + pair);
  } else if (f.scale != ScaleKind::kNone) {
    rows.scale.x = *(reinterpret_cast<const uint32_t*>(group) + pair);
  }
  if (f.has_zeros) {
    rows.zero = *(reinterpret_cast<const uint16_t*>(group + f.zeros_offset) + pair);
  }
  return rows;
}

// finish(its rows' scales, its parts) for group g, whose block is in shared memory; kSubs divides
// its number of sub-blocks.
template <CodeKind kCode, int kTokens, int kSubs, typename Finish>
__device__ inline void staged_group(const TileLayout& f, const std::byte* block,
                                    const CodebookTables& tables, const TokenInputs<kTokens>& in,
                                    int g, int lane, Finish finish) {
  GroupPart<kTokens> part;
  const std::byte* from = block + f.codes_offset;
  const int first_sub = g * f.subs_per_group;
#pragma unroll 1
  for (int j = 0; j < f.subs_per_group; j += kSubs) {
    LaneCodes<kCode> codes[kSubs];
#pragma unroll
    for (int i = 0; i < kSubs; ++i) {
      codes[i] = staged_codes<kCode>(from + i * kSubBytes<kCode>, lane);
    }
#pragma unroll
    for (int i = 0; i < kSubs; ++i) {
      part.template add<kCode>(codes[i], tables, in, first_sub + j + i);
    }
    from += kSubs * kSubBytes<kCode>;
  }
  const GroupRows rows = group_rows<kCode>(f, staged_rows(f, block, lane), tables.step);
  if (needs_zero<kCode>(f)) part.take_off_zeros(rows);
  finish(rows, part);
}

// finish(sub-block, its dot products) for a piece of sub-blocks first … end−1.
template <CodeKind kCode, int kTokens, typename Finish>
__device__ inline void staged_dots(const std::byte* piece, const CodebookTables& tables,
                                   const TokenInputs<kTokens>& in, int first, int end, int lane,
                                   Finish finish) {
#pragma unroll 4
  for (int sub = first; sub < end; ++sub) {
    const SubFragments<kCode> fragments(
        staged_codes<kCode>(piece + (sub - first) * kSubBytes<kCode>, lane), tables);
    float dots[4];
    fragments.dots(*reinterpret_cast<const uint2*>(in.q[0] + kSubBlock * sub), dots);
    finish(sub, dots);
  }
}

// A row's chain over the sub-blocks of its only group, and what makes it the row's result.
struct LongGroup {
  float sum = 0, input_sum = 0;

  // dots: of sub-blocks 0 … count−1, `stride` apart; meta: theirs.
  __device__ void add(const float* dots, int stride, const float* meta, int count) {
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      const float2 m = *reinterpret_cast<const float2*>(meta + 2 * i);
      sum = __fmaf_rn(dots[i * stride], m.x, sum);
      input_sum = __fmaf_rn(m.x, m.y, input_sum);
    }
  }
  __device__ float result(const TileLayout& f, const std::byte* tile, int row) const {
    const float offset = f.code == CodeKind::kInt8 ? 128.0f : 0.0f;
    const float minus_zero = __fsub_rn(offset, zero_at(f, tile, row));
    const bool needs = f.has_zeros || f.zero != offset;
    const float part = needs ? __fmaf_rn(minus_zero, input_sum, sum) : sum;
    return __fmaf_rn(part, scale_at(tile, f.scale, row), 0.0f);
  }
};

}  // namespace hotset::cuda
