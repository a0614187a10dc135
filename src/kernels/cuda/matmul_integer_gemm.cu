// SPDX-License-Identifier: Apache-2.0
// Integer products with many tokens, for groups of any length (group_gemm.cuh is for the usual
// ones). Codes come to shared memory as they are stored, four sub-blocks a stage, by asynchronous
// copies; a warp unpacks its tiles' codes in registers, so no second form of the weights exists.
// Sub-block by sub-block the integer sums join the fp32 chain of their row, in the CPU's order.
#include <algorithm>

#include "kernels/cuda/gemm_place.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_device.cuh"
#include "kernels/cuda/mma.cuh"

namespace hotset::cuda {
namespace {

constexpr int kStageSubs = 4;
constexpr int kStages = 3;
constexpr int kWarpTiles = 2;

// Warps stand kWarpRows × kWarpCols; one has 2 tiles of 16 rows and 8·kN tokens.
template <CodeKind kCode, int kWarpRows, int kWarpCols, int kN>
struct Shape {
  static constexpr int kThreads = kWarp * kWarpRows * kWarpCols;
  static constexpr int kTiles = kWarpTiles * kWarpRows;
  static constexpr int kTokens = 8 * kN * kWarpCols;
  static constexpr int kCodeBytes = kTiles * kStageSubs * kSubBytes<kCode>;
  static constexpr int kInputBytes = kStageSubs * kTokens * kSubBlock;
  static constexpr int kMetaBytes = kStageSubs * kTokens * 8;
  static constexpr int kStageBytes = kCodeBytes + kInputBytes + kMetaBytes;
};

// 8 bytes; zeros when not `inside`.
__device__ inline void copy_8_async(uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from),
               "r"(inside ? 8 : 0)
               : "memory");
}

// Where 16 bytes of a sub-block's codes go: int8 codes so that the words a lane reads together
// (offsets 2c and 2c+1) lie in two runs without bank conflicts.
template <CodeKind kCode>
HS_BOTH constexpr int staged_offset(int offset) {
  if (kCode != CodeKind::kInt8) return offset;
  const int quad = offset / 64;
  return ((quad % 2) * 4 + quad / 2) * 64 + offset % 64;
}
template <CodeKind kCode>
HS_BOTH constexpr int staged_lane_offset(int lane, int word) {
  return staged_offset<kCode>(lane_code_offset<kCode>(lane, word));
}

template <typename S, CodeKind kCode>
struct Loader {
  const GemmArgs& args;
  const GemmPlace& place;
  const int32_t* rows;  // shared: input rows of the block's tokens
  int first_tile;
  uint32_t shared;

  __device__ void codes(uint32_t to, int first_sub) const {
    constexpr int kPerSub = kSubBytes<kCode> / 16;
    const TileLayout& f = args.weight;
    for (int i = static_cast<int>(threadIdx.x); i < S::kCodeBytes / 16; i += S::kThreads) {
      const int offset = 16 * (i % kPerSub);
      const int sub = first_sub + i / kPerSub % kStageSubs;
      const int tile = first_tile + i / (kPerSub * kStageSubs);
      const int g = sub / f.subs_per_group, j = sub % f.subs_per_group;
      constexpr int kStepBytes = kSubBytes<kCode> / 4;
      const bool inside =
          tile < f.num_tiles() && g < f.num_groups && offset < sub_steps(f, j) * kStepBytes;
      const std::byte* from = place.data;
      if (inside) {
        from += tile * f.tile_bytes + static_cast<int64_t>(g) * f.group_bytes + f.codes_offset +
                static_cast<int64_t>(j) * kSubBytes<kCode> + offset;
      }
      copy_async(to + (i / kPerSub) * kSubBytes<kCode> + staged_offset<kCode>(offset), from,
                 inside);
    }
  }
  // [sub][token][32 bytes]
  __device__ void input(uint32_t to, int first_sub, int num_subs) const {
    for (int i = static_cast<int>(threadIdx.x); i < S::kInputBytes / 16; i += S::kThreads) {
      const int part = i % (2 * kStageSubs), token = i / (2 * kStageSubs);
      const int sub = part / 2;
      const bool inside = token < place.count && first_sub + sub < num_subs;
      const int8_t* from = args.input.q;
      if (inside) from = args.input.q_row(rows[token]) + (first_sub * 2 + part) * 16;
      copy_async(to + (sub * S::kTokens + token) * kSubBlock + (part % 2) * 16, from, inside);
    }
  }
  // [sub][token]: scale and sum
  __device__ void meta(uint32_t to, int first_sub, int num_subs) const {
    for (int i = static_cast<int>(threadIdx.x); i < S::kMetaBytes / 8; i += S::kThreads) {
      const int sub = i % kStageSubs, token = i / kStageSubs;
      const bool inside = token < place.count && first_sub + sub < num_subs;
      const float* from = args.input.meta;
      if (inside) from = args.input.meta_row(rows[token]) + 2 * (first_sub + sub);
      copy_8_async(to + (sub * S::kTokens + token) * 8, from, inside);
    }
  }
  __device__ void stage(int index, int num_subs) const {
    const int first_sub = index * kStageSubs;
    if (first_sub < num_subs) {
      const uint32_t to = shared + static_cast<uint32_t>(index % kStages * S::kStageBytes);
      codes(to, first_sub);
      input(to + S::kCodeBytes, first_sub, num_subs);
      meta(to + S::kCodeBytes + S::kInputBytes, first_sub, num_subs);
    }
    commit_async();
  }
};

// A warp's 2 tiles × 8·kN tokens; d's layout in each of them.
template <CodeKind kCode, int kN>
struct Sums {
  float part[kWarpTiles][kN][4] = {};
  float y[kWarpTiles][kN][4] = {};
  float running[kN][2] = {};  // Σ scale · sum of the group

  // `codes`, `input`, `meta`: the sub-block's, at this warp's first tile and token.
  __device__ void add(const std::byte* codes, const std::byte* input, const std::byte* meta,
                      const Codebook& book, int lane) {
    uint2 q[kN];
    float4 m[kN];
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      q[n] =
          *reinterpret_cast<const uint2*>(input + (8 * n + lane / 4) * kSubBlock + 8 * (lane % 4));
      m[n] = *reinterpret_cast<const float4*>(meta + (8 * n + 2 * (lane % 4)) * 8);
      running[n][0] = __fmaf_rn(m[n].x, m[n].y, running[n][0]);
      running[n][1] = __fmaf_rn(m[n].z, m[n].w, running[n][1]);
    }
#pragma unroll
    for (int t = 0; t < kWarpTiles; ++t) {
      const std::byte* tile = codes + t * kStageSubs * kSubBytes<kCode>;
      LaneCodes<kCode> mine;
#pragma unroll
      for (int w = 0; w < (kCode == CodeKind::kInt8 ? 2 : 1); ++w) {
        mine.words[w] = *reinterpret_cast<const uint2*>(tile + staged_lane_offset<kCode>(lane, w));
      }
      const Fragment wide = fragment<kCode>(mine, book);
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        float dot[4];
        sub_dots(wide, q[n], dot);
        part[t][n][0] = __fmaf_rn(dot[0], m[n].x, part[t][n][0]);
        part[t][n][1] = __fmaf_rn(dot[1], m[n].z, part[t][n][1]);
        part[t][n][2] = __fmaf_rn(dot[2], m[n].x, part[t][n][2]);
        part[t][n][3] = __fmaf_rn(dot[3], m[n].z, part[t][n][3]);
      }
    }
  }
  __device__ void end_group(const GroupRows (&rows)[kWarpTiles], bool zeros) {
#pragma unroll
    for (int t = 0; t < kWarpTiles; ++t) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float sum = part[t][n][i];
          if (zeros) sum = __fmaf_rn(rows[t].minus_zero[i / 2], running[n][i % 2], sum);
          y[t][n][i] = __fmaf_rn(sum, rows[t].scale[i / 2], y[t][n][i]);
          part[t][n][i] = 0;
        }
      }
    }
#pragma unroll
    for (int n = 0; n < kN; ++n) running[n][0] = running[n][1] = 0;
  }
};

template <CodeKind kCode, int kWarpRows, int kWarpCols, int kN>
__global__ void __launch_bounds__(kWarp* kWarpRows* kWarpCols, 2)
    integer_gemm_kernel(const __grid_constant__ GemmArgs args) {
  using S = Shape<kCode, kWarpRows, kWarpCols, kN>;
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ int32_t rows[S::kTokens];
  const GemmPlace place = gemm_place(args, static_cast<int>(blockIdx.y), S::kTokens);
  if (place.data == nullptr) return;
  const TileLayout& f = args.weight;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < S::kTokens && thread < place.count) {
    rows[thread] = static_cast<int32_t>(input_row(args, place.slot_begin + thread));
  }
  __syncthreads();
  const int first_tile = static_cast<int>(blockIdx.x) * S::kTiles;
  const Loader<S, kCode> loader{args, place, rows, first_tile, shared_address(shared)};
  const int num_subs = f.num_subs();
  const int num_stages = (num_subs + kStageSubs - 1) / kStageSubs;
  for (int s = 0; s < kStages - 1; ++s) loader.stage(s, num_subs);

  const int lane = thread % kWarp, warp = thread / kWarp;
  const int warp_tile = warp % kWarpRows * kWarpTiles;  // inside the block
  const int warp_token = warp / kWarpRows * 8 * kN;
  const Codebook book = load_codebook<kCode>(f, lane);
  const bool zeros = needs_zero<kCode>(f);
  StoredRows stored[kWarpTiles];
  const auto fetch_rows = [&](int g) {
#pragma unroll
    for (int t = 0; t < kWarpTiles; ++t) {
      const int tile = min(first_tile + warp_tile + t, f.num_tiles() - 1);
      const std::byte* block =
          place.data + tile * f.tile_bytes + static_cast<int64_t>(g) * f.group_bytes;
      stored[t] = load_rows(f, block, lane);
    }
  };
  Sums<kCode, kN> sums;
  int g = 0, j = 0;
  for (int s = 0; s < num_stages; ++s) {
    wait_async<kStages - 2>();
    __syncthreads();
    loader.stage(s + kStages - 1, num_subs);
    const std::byte* stage = shared + s % kStages * S::kStageBytes;
#pragma unroll
    for (int i = 0; i < kStageSubs; ++i) {
      if (s * kStageSubs + i >= num_subs) break;
      if (j == 0) fetch_rows(g);
      const std::byte* codes = stage + (warp_tile * kStageSubs + i) * kSubBytes<kCode>;
      const std::byte* input = stage + S::kCodeBytes + (i * S::kTokens + warp_token) * kSubBlock;
      const std::byte* meta =
          stage + S::kCodeBytes + S::kInputBytes + (i * S::kTokens + warp_token) * 8;
      sums.add(codes, input, meta, book, lane);
      if (++j == f.subs_per_group) {
        GroupRows rows_now[kWarpTiles];
#pragma unroll
        for (int t = 0; t < kWarpTiles; ++t) {
          rows_now[t] = group_rows<kCode>(f, stored[t], book.step);
        }
        sums.end_group(rows_now, zeros);
        j = 0;
        ++g;
      }
    }
  }

#pragma unroll
  for (int n = 0; n < kN; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = warp_token + 8 * n + 2 * (lane % 4) + i % 2;
      if (token >= place.count) continue;
      float* y = args.y + output_row(args, place.slot_begin + token) * args.ldy;
#pragma unroll
      for (int t = 0; t < kWarpTiles; ++t) {
        const int row = kTileRows * (first_tile + warp_tile + t) + 2 * (lane / 4) + i / 2;
        if (row < f.rows) y[row] = sums.y[t][n][i];
      }
    }
  }
}

template <CodeKind kCode, int kWarpRows, int kWarpCols, int kN>
void launch_gemm(Queue& queue, const GemmArgs& args) {
  using S = Shape<kCode, kWarpRows, kWarpCols, kN>;
  const int64_t runs =
      args.chunks != nullptr ? args.max_chunks : (args.num_tokens + S::kTokens - 1) / S::kTokens;
  const Grid grid{blocks_for(args.weight.num_tiles(), S::kTiles), static_cast<unsigned>(runs), 1};
  constexpr auto kKernel = integer_gemm_kernel<kCode, kWarpRows, kWarpCols, kN>;
  HS_LAUNCH(queue, grid, Grid{S::kThreads}, int64_t{kStages} * S::kStageBytes, kKernel, args);
}

}  // namespace

void integer_gemm(Queue& queue, const GemmArgs& args) {
  if (has_whole_groups(args.weight, args.input)) return group_gemm(queue, args);
  switch (args.weight.code) {
    case CodeKind::kAffine4:
      return launch_gemm<CodeKind::kAffine4, 4, 2, 4>(queue, args);
    case CodeKind::kInt8:
      return launch_gemm<CodeKind::kInt8, 4, 2, 4>(queue, args);
    default:
      return launch_gemm<CodeKind::kCodebook4, 4, 2, 4>(queue, args);
  }
}

}  // namespace hotset::cuda
