// SPDX-License-Identifier: Apache-2.0
// Integer products with many tokens for weights in groups of 32, 64 or 128 columns. A block has 8
// tiles and up to 64 tokens. A stage is 128 columns: whole groups, which come to shared memory with
// their scales by asynchronous copies, as they lie; each warp unpacks its tiles' codes in
// registers. Looking up those of a codebook takes longer, so the warps share it: each leaves the
// fragments of the tiles that it copied in shared memory, a stage ahead; where tokens are many, a
// block has 4 tiles and up to 128 of them. The fp32 operations of a row are those of
// matmul_integer_gemm.cu in the same order.
//
// With gate and up in one kernel a warp has two tiles of either, so that the 32 columns that down
// rounds together are its own: it applies SwiGLU and rounds in registers.
#pragma once

#include "kernels/cuda/group_gemm_load.cuh"

namespace hotset::cuda {

// kHalves: known to be.
template <bool kHalves>
__device__ inline StoredRows staged_rows(const TileLayout& f, const std::byte* group, int pair) {
  StoredRows rows = {};
  if (!kHalves && f.scale == ScaleKind::kF32) {
    rows.scale = *(reinterpret_cast<const uint2*>(group) + pair);
  } else if (kHalves || f.scale != ScaleKind::kNone) {
    rows.scale.x = *(reinterpret_cast<const uint32_t*>(group) + pair);
  }
  if (f.has_zeros) rows.zero = *(reinterpret_cast<const uint16_t*>(group + f.zeros_offset) + pair);
  return rows;
}

template <CodeKind kCode>
__device__ inline GroupRows half_group_rows(const TileLayout& f, const StoredRows& stored,
                                            float codebook_step) {
  const uint32_t bits = stored.scale.x;
  return group_rows_of<kCode>(f, half_bits(bits), half_bits(bits >> 16), stored.zero,
                              codebook_step);
}

// A warp leaves the fragments of the tiles that it copies itself: [tile][sub-block][lane].
template <typename B>
__device__ inline void widen_stage(const TileLayout& f, const std::byte* tiles, int tile_bytes,
                                   const Codebook* books, int warp, int lane, std::byte* wide) {
  static_assert(B::kLoadTiles <= 2);  // of one matrix
  const Codebook book = books[B::kFused ? warp * B::kLoadTiles % 4 / 2 : 0];
#pragma unroll
  for (int i = 0; i < B::kLoadTiles; ++i) {
    const int slot = warp * B::kLoadTiles + i;
#pragma unroll
    for (int sub = 0; sub < B::kSubs; ++sub) {
      const std::byte* codes = tiles + slot * tile_bytes + sub / B::kGroupSubs * f.group_bytes +
                               f.codes_offset + sub % B::kGroupSubs * kSubBytes<B::kCode>;
      LaneCodes<B::kCode> mine;
      mine.words[0] = *reinterpret_cast<const uint2*>(codes + lane_code_offset<B::kCode>(lane, 0));
      const Fragment fragments = fragment<B::kCode>(mine, book);
      *reinterpret_cast<uint4*>(wide + ((slot * B::kSubs + sub) * kWarp + lane) * 16) = {
          fragments.a[0], fragments.a[1], fragments.a[2], fragments.a[3]};
    }
  }
}

// A warp's 4 tiles × 8·kN tokens; d's layout in each of them.
template <typename B, int kN>
struct GroupSums {
  float y[B::kWarpTiles][kN][4] = {};
  float part[B::kWarpTiles][kN][4];
  float running[kN][2];

  // Sub-block i of a stage at `tiles` and `wide`, this warp's first, and `input` and `meta`, at its
  // first token.
  template <int i>
  __device__ void add(const TileLayout& f, const std::byte* tiles, int tile_bytes,
                      const std::byte* wide, const std::byte* input, const std::byte* meta,
                      const Codebook* books, int lane) {
    constexpr bool kFirst = i % B::kGroupSubs == 0;
    uint2 q[kN];
    float scale[kN][2];
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      q[n] = *reinterpret_cast<const uint2*>(input + (i * B::kTokens + 8 * n + lane / 4) * 32 +
                                             8 * (lane % 4));
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float2 m = *reinterpret_cast<const float2*>(
            meta + (8 * n + 2 * (lane % 4) + e) * (8 * B::kSubs) + 8 * i);
        scale[n][e] = m.x;
        if constexpr (B::kCode == CodeKind::kAffine4) {
          running[n][e] = __fmaf_rn(m.x, m.y, kFirst ? 0.0f : running[n][e]);
        }
      }
    }
    const std::byte* codes = tiles + i / B::kGroupSubs * f.group_bytes + f.codes_offset +
                             i % B::kGroupSubs * kSubBytes<B::kCode>;
#pragma unroll
    for (int t = 0; t < B::kWarpTiles; ++t) {
      Fragment fragments;
      if constexpr (B::kWidens) {
        const uint4 four =
            *reinterpret_cast<const uint4*>(wide + (t * B::kSubs + i) * kWarp * 16 + lane * 16);
        fragments = {{four.x, four.y, four.z, four.w}};
      } else {
        LaneCodes<B::kCode> mine;
#pragma unroll
        for (int w = 0; w < (B::kCode == CodeKind::kInt8 ? 2 : 1); ++w) {
          mine.words[w] = *reinterpret_cast<const uint2*>(
              codes + t * tile_bytes + staged_code<B::kCode>(lane_code_offset<B::kCode>(lane, w)));
        }
        fragments = fragment<B::kCode>(mine, Codebook{});
      }
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        float dot[4];
        sub_dots(fragments, q[n], dot);
#pragma unroll
        for (int d = 0; d < 4; ++d) {
          part[t][n][d] = __fmaf_rn(dot[d], scale[n][d % 2], kFirst ? 0.0f : part[t][n][d]);
        }
      }
    }
    if constexpr ((i + 1) % B::kGroupSubs == 0) {
      end_group(f, tiles + i / B::kGroupSubs * f.group_bytes, tile_bytes, books, lane);
    }
  }
  __device__ void end_group(const TileLayout& f, const std::byte* group, int tile_bytes,
                            const Codebook* books, int lane) {
    if (f.scale == ScaleKind::kF16) {
      end_group_as<true>(f, group, tile_bytes, books, lane);
    } else {
      end_group_as<false>(f, group, tile_bytes, books, lane);
    }
  }
  template <bool kHalves>
  __device__ void end_group_as(const TileLayout& f, const std::byte* group, int tile_bytes,
                               const Codebook* books, int lane) {
#pragma unroll
    for (int t = 0; t < B::kWarpTiles; ++t) {
      const float step = B::kWidens ? books[B::kFused ? t / 2 : 0].step : 1.0f;
      const StoredRows stored = staged_rows<kHalves>(f, group + t * tile_bytes, lane / 4);
      const GroupRows rows = kHalves ? half_group_rows<B::kCode>(f, stored, step)
                                     : group_rows<B::kCode>(f, stored, step);
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int d = 0; d < 4; ++d) {
          float sum = part[t][n][d];
          if constexpr (B::kCode == CodeKind::kAffine4) {
            sum = __fmaf_rn(rows.minus_zero[d / 2], running[n][d % 2], sum);
          }
          y[t][n][d] = __fmaf_rn(sum, rows.scale[d / 2], y[t][n][d]);
        }
      }
    }
  }
};

// y as floats, two rows at a time where they lie together.
template <typename B, int kN>
__device__ inline void write_rows(const GemmArgs& args, const GemmPlace& place, int first_tile,
                                  int first_token, int lane, const GroupSums<B, kN>& sums) {
  const int num_rows = args.weight.rows;
  const bool pairs = (num_rows | args.ldy) % 2 == 0 && reinterpret_cast<uintptr_t>(args.y) % 8 == 0;
#pragma unroll
  for (int n = 0; n < kN; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int token = first_token + 8 * n + 2 * (lane % 4) + e;
      if (token >= place.count) continue;
      float* y = args.y + output_row(args, place.slot_begin + token) * args.ldy;
#pragma unroll
      for (int t = 0; t < B::kWarpTiles; ++t) {
        const int row = kTileRows * (first_tile + t) + 2 * (lane / 4);
        if (pairs) {
          if (row < num_rows)
            *reinterpret_cast<float2*>(y + row) = {sums.y[t][n][e], sums.y[t][n][2 + e]};
        } else {
          if (row < num_rows) y[row] = sums.y[t][n][e];
          if (row + 1 < num_rows) y[row + 1] = sums.y[t][n][2 + e];
        }
      }
    }
  }
}

// The eight lanes that share a token.
__device__ inline uint32_t most_of_token(uint32_t value) {
  for (int step = 4; step < kWarp; step *= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}
__device__ inline int sum_of_token(int value) {
  for (int step = 4; step < kWarp; step *= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// silu(gate) ∘ up, rounded as round_sub_block does: sub-block `sub` of what down reads.
template <typename B, int kN>
__device__ inline void write_act(const GateUpArgs& args, const GemmPlace& place, int sub,
                                 int first_token, int lane, const GroupSums<B, kN>& sums) {
  if (sub >= args.act_subs) return;
  const int num_rows = args.gate.weight.rows;
#pragma unroll
  for (int n = 0; n < kN; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float value[2][2];
      uint32_t bits = 0;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int row = kSubBlock * sub + kTileRows * t + 2 * (lane / 4) + i;
          value[t][i] = row < num_rows
                            ? silu_mul(sums.y[t][n][2 * i + e], sums.y[2 + t][n][2 * i + e])
                            : 0.0f;
          bits = max(bits, __float_as_uint(value[t][i]) & 0x7fffffffu);
        }
      }
      bits = most_of_token(bits);
      const SubBlockScale scale = sub_block_scale(bits);
      int q[2][2], sum = 0;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          q[t][i] = scale.rounded(value[t][i]);
          sum += q[t][i];
        }
      }
      sum = sum_of_token(sum);
      const int token = first_token + 8 * n + 2 * (lane % 4) + e;
      if (token >= place.count) continue;
      const int64_t slot = place.slot_begin + token;
      int8_t* to = args.act.q + slot * args.act.sub_stride * kSubBlock + kSubBlock * sub;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        *reinterpret_cast<char2*>(to + kTileRows * t + 2 * (lane / 4)) = {
            static_cast<signed char>(q[t][0]), static_cast<signed char>(q[t][1])};
      }
      if (lane < 4) {
        float* meta = args.act.meta + slot * args.act.sub_stride * 2 + 2 * sub;
        *reinterpret_cast<float2*>(meta) = {scale.scale, static_cast<float>(sum)};
      }
    }
  }
}

template <typename B, int kN>
__device__ inline void group_block(const GateUpArgs& args, const GemmPlace& place,
                                   const std::byte* const (&matrices)[B::kMatrices],
                                   const int32_t* rows, Codebook* books, std::byte* shared) {
  const TileLayout& f = args.gate.weight;
  const int first_tile = static_cast<int>(blockIdx.x) * B::kMatrixTiles;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row_warp = warp % B::kRowWarps;
  const int first_token = warp / B::kRowWarps * 8 * kN;
  const bool has_tokens = first_token < place.count;
  GroupLoader<B> loader(args.gate, matrices, rows, place.count, first_tile);
  const int num_stages = f.num_subs() / B::kSubs;
  const int stage_bytes = loader.stage_bytes();
  const uint32_t ring = shared_address(shared);
  for (int s = 0; s < B::kStages - 1; ++s) {
    if (s < num_stages) loader.load(ring + static_cast<uint32_t>(s * stage_bytes), s);
    commit_async();
  }
  const int tile_bytes = loader.tile_stage_bytes;
  GroupSums<B, kN> sums;
  std::byte* wide = shared + B::kStages * stage_bytes;  // of this stage, and then of the next
  if constexpr (B::kWidens) {
    if (warp < B::kMatrices) {
      TileLayout of = f;
      if (warp == 1) of.codebook = args.up_codebook;
      const Codebook mine = load_codebook<B::kCode>(of, lane);
      if (lane == 0) books[warp] = mine;
    }
    wait_async<B::kStages - 2>();
    __syncthreads();
    widen_stage<B>(f, shared, tile_bytes, books, warp, lane, wide);
  }
  int now = 0, next = B::kStages - 1;
  for (int s = 0; s < num_stages; ++s) {
    wait_async<B::kWidens ? B::kStages - 3 : B::kStages - 2>();
    __syncthreads();
    if (s + B::kStages - 1 < num_stages) {
      loader.load(ring + static_cast<uint32_t>(next * stage_bytes), s + B::kStages - 1);
    }
    commit_async();
    next = next + 1 == B::kStages ? 0 : next + 1;
    const std::byte* stage = shared + now * stage_bytes;
    now = now + 1 == B::kStages ? 0 : now + 1;
    if constexpr (B::kWidens) {
      if (s + 1 < num_stages) {
        widen_stage<B>(f, shared + now * stage_bytes, tile_bytes, books, warp, lane,
                       wide + (s + 1) % 2 * B::kWideBytes);
      }
    }
    if (!has_tokens) continue;
    const std::byte* fragments =
        wide + s % 2 * B::kWideBytes + row_warp * B::kWarpTiles * B::kSubs * kWarp * 16;
    const std::byte* tiles = stage + row_warp * B::kWarpTiles * tile_bytes;
    const std::byte* input = stage + B::kTiles * tile_bytes + first_token * kSubBlock;
    const std::byte* meta =
        stage + B::kTiles * tile_bytes + B::kInputBytes + first_token * (8 * B::kSubs);
    sums.template add<0>(f, tiles, tile_bytes, fragments, input, meta, books, lane);
    sums.template add<1>(f, tiles, tile_bytes, fragments, input, meta, books, lane);
    sums.template add<2>(f, tiles, tile_bytes, fragments, input, meta, books, lane);
    sums.template add<3>(f, tiles, tile_bytes, fragments, input, meta, books, lane);
  }
  if (!has_tokens) return;
  if constexpr (B::kFused) {
    write_act(args, place, first_tile / 2 + row_warp, first_token, lane, sums);
  } else {
    write_rows(args.gate, place, first_tile + row_warp * B::kWarpTiles, first_token, lane, sums);
  }
}

template <typename B>
__global__ void __launch_bounds__(B::kThreads, B::kBlocks)
    group_gemm_kernel(const __grid_constant__ GateUpArgs args) {
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ int32_t rows[B::kTokens];
  __shared__ Codebook books[B::kMatrices];
  const int block = static_cast<int>(blockIdx.y);
  const GemmPlace place = gemm_place(args.gate, block, B::kTokens);
  if (place.data == nullptr) return;
  const std::byte* matrices[B::kMatrices];
  matrices[0] = place.data;
  if constexpr (B::kFused) matrices[1] = place.up;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < B::kTokens && thread < place.count) {
    rows[thread] = static_cast<int32_t>(input_row(args.gate, place.slot_begin + thread));
  }
  __syncthreads();
  switch ((place.count + 8 * B::kTokenWarps - 1) / (8 * B::kTokenWarps)) {
    case 1:
      return group_block<B, 1>(args, place, matrices, rows, books, shared);
    case 2:
      return group_block<B, 2>(args, place, matrices, rows, books, shared);
    case 3:
      return group_block<B, 3>(args, place, matrices, rows, books, shared);
    default:
      return group_block<B, 4>(args, place, matrices, rows, books, shared);
  }
}

template <typename B>
void launch_group_gemm(Queue& queue, const GateUpArgs& args) {
  const GemmArgs& gemm = args.gate;
  const int64_t runs =
      gemm.chunks != nullptr ? gemm.max_chunks : (gemm.num_tokens + B::kTokens - 1) / B::kTokens;
  const int64_t tiles = B::kFused ? 2 * args.act_subs : gemm.weight.num_tiles();
  const Grid grid{blocks_for(tiles, B::kMatrixTiles), static_cast<unsigned>(runs), 1};
  const int64_t stage =
      int64_t{B::kTiles} * B::kGroups * gemm.weight.group_bytes + B::kInputBytes + B::kMetaBytes;
  HS_LAUNCH(queue, grid, Grid{B::kThreads}, B::kStages * stage + 2 * B::kWideBytes,
            group_gemm_kernel<B>, args);
}

// By group length, which is 32, 64 or 128.
template <CodeKind kCode, bool kFused>
void launch_by_group(Queue& queue, const GateUpArgs& args) {
  switch (args.gate.weight.group) {
    case 32:
      return launch_group_gemm<GroupBlock<kCode, 1, kFused>>(queue, args);
    case 64:
      return launch_group_gemm<GroupBlock<kCode, 2, kFused>>(queue, args);
    default:
      return launch_group_gemm<GroupBlock<kCode, 4, kFused>>(queue, args);
  }
}

// One kind a file; without an up, `args` is one product.
void group_gemm_affine4(Queue& queue, const GateUpArgs& args, bool gate_up);
void group_gemm_int8(Queue& queue, const GateUpArgs& args, bool gate_up);
void group_gemm_codebook4(Queue& queue, const GateUpArgs& args, bool gate_up);

}  // namespace hotset::cuda
