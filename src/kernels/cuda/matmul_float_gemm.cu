// SPDX-License-Identifier: Apache-2.0
// Float products with many tokens. bf16 weights go to the matrix units as they are, against the
// input as the sum of two bf16 values (high and low), with fp32 sums: what is lost is below 2^-16
// of each product. All other kinds are dequantised to fp32 in shared memory and multiplied there.
#include "kernels/cuda/gemm_place.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tile_products.cuh"

namespace hotset::cuda {
namespace {

constexpr int kThreads = 256;

// ── fp32 ────────────────────────────────────────────────────────────────────────────────────────

constexpr int kBlockRows = 64;
constexpr int kBlockTokens = 64;
constexpr int kBlockCols = 16;

// Four rows of one column, dequantised.
template <CodeKind kCode>
__device__ inline float4 weight_values(const TileLayout& f, const std::byte* tile, int row,
                                       int col) {
  float v[4];
  const int g = col / f.group, in_group = col % f.group;
  const std::byte* block = tile + static_cast<int64_t>(g) * f.group_bytes;
  const std::byte* codes = block + f.codes_offset;
  if constexpr (kCode == CodeKind::kInt8 || kCode == CodeKind::kAffine4 ||
                kCode == CodeKind::kCodebook4) {
    constexpr int kStepBytes = kCode == CodeKind::kInt8 ? 128 : 64;
    const std::byte* step = codes + static_cast<int64_t>(in_group / 8) * kStepBytes;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float zero = kCode == CodeKind::kCodebook4 ? 0.0f : zero_at(f, block, row + i);
      v[i] = code_value<kCode>(f, step, row + i, in_group % 8) - zero;
    }
  } else {
    FourRows<kCode> rows;
    rows.load(codes + (static_cast<int64_t>(in_group) * 4 + row / 4) * FourRows<kCode>::kBytes);
    rows.values(v);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] *= scale_at(block, f.scale, row + i);
  return {v[0], v[1], v[2], v[3]};
}

template <CodeKind kCode>
__global__ void __launch_bounds__(kThreads)
    float_gemm_kernel(const __grid_constant__ GemmArgs args) {
  __shared__ __align__(16) float w[kBlockCols][kBlockRows + 4];
  __shared__ __align__(16) float x[kBlockCols][kBlockTokens + 4];
  const GemmPlace place = gemm_place(args, static_cast<int>(blockIdx.y), kBlockTokens);
  if (place.data == nullptr) return;
  const TileLayout& f = args.weight;
  const int thread = static_cast<int>(threadIdx.x);
  const int first_row = static_cast<int>(blockIdx.x) * kBlockRows;
  // Loading: a thread has one column and four rows, and one column of four tokens.
  const int load_col = thread % kBlockCols, load_four = thread / kBlockCols * 4;
  const int tile = (first_row + load_four) / kTileRows;
  const float* input[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = min(load_four + i, place.count - 1);
    input[i] = args.x + input_row(args, place.slot_begin + token) * args.ldx;
  }
  const int row = thread % 16 * 4, token = thread / 16 * 4;
  float sums[4][4] = {};
  for (int begin = 0; begin < f.cols; begin += kBlockCols) {
    const int col = begin + load_col;
    float4 weights = {0, 0, 0, 0};
    if (col < f.cols && tile < f.num_tiles()) {
      weights =
          weight_values<kCode>(f, place.data + tile * f.tile_bytes, load_four % kTileRows, col);
    }
    *reinterpret_cast<float4*>(&w[load_col][load_four]) = weights;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      x[load_col][load_four + i] = input_at(f, place.order, input[i], col);
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kBlockCols; ++c) {
      const float4 a = *reinterpret_cast<const float4*>(&w[c][row]);
      const float4 b = *reinterpret_cast<const float4*>(&x[c][token]);
      const float av[4] = {a.x, a.y, a.z, a.w}, bv[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int r = 0; r < 4; ++r) sums[t][r] = __fmaf_rn(av[r], bv[t], sums[t][r]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int t = 0; t < 4; ++t) {
    if (token + t >= place.count) continue;
    float* y = args.y + output_row(args, place.slot_begin + token + t) * args.ldy;
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      if (first_row + row + r < f.rows) y[first_row + row + r] = sums[t][r];
    }
  }
}

// ── bf16 ────────────────────────────────────────────────────────────────────────────────────────

constexpr int kMmaTiles = 8;  // 128 rows
constexpr int kMmaTokens = 64;
constexpr int kMmaCols = 64;   // four steps of mma.m16n8k16
constexpr int kColBytes = 32;  // a column of a tile
constexpr int kWeightBytes = kMmaTiles * kMmaCols * kColBytes;
constexpr int kHalfBytes = kMmaCols * kMmaTokens * 2;  // the high parts, or the low ones
constexpr int kMmaStage = kWeightBytes + 2 * kHalfBytes;
constexpr int kTokenParts = kMmaTokens * kMmaCols / kThreads / 4;  // of four columns, a thread

struct InputParts {
  float4 v[kTokenParts];
};

// Lane l of a warp has, of every 16 columns, 4c … 4c+3 of token r (l = 4r + c): 8 bytes in a row.
// The matrix unit's columns 2c, 2c+1, 2c+8, 2c+9 stand for them, in the weights too.
HS_BOTH constexpr int weight_column(int unit_column) {
  const int c = unit_column % 8 / 2;
  return 4 * c + unit_column % 2 + (unit_column >= 8 ? 2 : 0);
}

struct Bf16Block {
  const GemmArgs& args;
  const GemmPlace& place;
  const int32_t* rows;
  int first_tile;
  std::byte* shared;

  __device__ void load_weights(int stage, int begin) const {
    const TileLayout& f = args.weight;
    const uint32_t to = shared_address(shared) + static_cast<uint32_t>(stage * kMmaStage);
    for (int i = static_cast<int>(threadIdx.x); i < kWeightBytes / 16; i += kThreads) {
      const int tile = first_tile + i / (kMmaCols * 2), part = i % (kMmaCols * 2);
      const int col = begin + part / 2;
      const bool inside = tile < f.num_tiles() && col < f.cols;
      const std::byte* from = place.data;
      if (inside) from += tile * f.tile_bytes + static_cast<int64_t>(begin) * kColBytes + part * 16;
      copy_async(to + static_cast<uint32_t>(i * 16), from, inside);
    }
    commit_async();
  }
  __device__ InputParts load_input(int begin, bool fours) const {
    InputParts parts = {};
#pragma unroll
    for (int p = 0; p < kTokenParts; ++p) {
      const int i = static_cast<int>(threadIdx.x) + p * kThreads;
      const int token = i / (kMmaCols / 4), col = begin + i % (kMmaCols / 4) * 4;
      if (token >= place.count) continue;
      const float* x = args.x + static_cast<int64_t>(rows[token]) * args.ldx;
      if (fours && col + 4 <= args.weight.cols) {
        parts.v[p] = *reinterpret_cast<const float4*>(x + col);
      } else {
        parts.v[p] = {input_at(args.weight, place.order, x, col),
                      input_at(args.weight, place.order, x, col + 1),
                      input_at(args.weight, place.order, x, col + 2),
                      input_at(args.weight, place.order, x, col + 3)};
      }
    }
    return parts;
  }
  // [high, low][16 columns][token][16 values]
  __device__ void store_input(int stage, const InputParts& parts) const {
    std::byte* to = shared + stage * kMmaStage + kWeightBytes;
#pragma unroll
    for (int p = 0; p < kTokenParts; ++p) {
      const int i = static_cast<int>(threadIdx.x) + p * kThreads;
      const int token = i / (kMmaCols / 4), four = i % (kMmaCols / 4);
      const float4 v = parts.v[p];
      const Halves<__nv_bfloat16> a = split_pair<__nv_bfloat16>(v.x, v.y);
      const Halves<__nv_bfloat16> b = split_pair<__nv_bfloat16>(v.z, v.w);
      std::byte* at = to + ((four / 4) * kMmaTokens + token) * 32 + four % 4 * 8;
      *reinterpret_cast<uint2*>(at) = {a.high, b.high};
      *reinterpret_cast<uint2*>(at + kHalfBytes) = {a.low, b.low};
    }
  }
};

// Warps stand 4 × 2; one has 2 tiles and 32 tokens.
__device__ inline void bf16_stage(const std::byte* stage, int warp_tile, int warp_token, int lane,
                                  float (&sums)[2][4][4]) {
#pragma unroll
  for (int k = 0; k < kMmaCols / 16; ++k) {
    uint32_t a[2][4];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const int col = 16 * k + weight_column(lane / 16 * 8 + lane % 8);
      const std::byte* at =
          stage + ((warp_tile + t) * kMmaCols + col) * kColBytes + lane / 8 % 2 * 16;
      load_transposed(a[t], shared_address(at));
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const std::byte* at = stage + kWeightBytes +
                            (k * kMmaTokens + warp_token + 8 * n + lane / 4) * 32 + lane % 4 * 8;
      const uint2 high = *reinterpret_cast<const uint2*>(at);
      const uint2 low = *reinterpret_cast<const uint2*>(at + kHalfBytes);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        multiply_add<__nv_bfloat16>(sums[t][n], a[t], low.x, low.y);
        multiply_add<__nv_bfloat16>(sums[t][n], a[t], high.x, high.y);
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads, 2)
    bf16_gemm_kernel(const __grid_constant__ GemmArgs args) {
  extern __shared__ __align__(128) std::byte shared[];  // two stages
  __shared__ int32_t rows[kMmaTokens];
  const GemmPlace place = gemm_place(args, static_cast<int>(blockIdx.y), kMmaTokens);
  if (place.data == nullptr) return;
  const TileLayout& f = args.weight;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < place.count) {
    rows[thread] = static_cast<int32_t>(input_row(args, place.slot_begin + thread));
  }
  __syncthreads();
  const int first_tile = static_cast<int>(blockIdx.x) * kMmaTiles;
  const Bf16Block block{args, place, rows, first_tile, shared};
  const bool fours =
      place.order == nullptr && args.ldx % 4 == 0 && reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
  const int lane = thread % kWarp, warp = thread / kWarp;
  const int warp_tile = warp % 4 * 2, warp_token = warp / 4 * 32;
  float sums[2][4][4] = {};
  block.load_weights(0, 0);
  block.store_input(0, block.load_input(0, fours));
  const int num_stages = (f.cols + kMmaCols - 1) / kMmaCols;
  for (int s = 0; s < num_stages; ++s) {
    wait_async<0>();
    __syncthreads();
    InputParts next;
    const bool more = s + 1 < num_stages;
    if (more) {
      block.load_weights((s + 1) % 2, (s + 1) * kMmaCols);
      next = block.load_input((s + 1) * kMmaCols, fours);
    }
    bf16_stage(shared + s % 2 * kMmaStage, warp_tile, warp_token, lane, sums);
    if (more) block.store_input((s + 1) % 2, next);
  }
  // d[0], d[1]: row r, tokens 2c, 2c+1; d[2], d[3]: row r + 8.
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = warp_token + 8 * n + 2 * (lane % 4) + i % 2;
      if (token >= place.count) continue;
      float* y = args.y + output_row(args, place.slot_begin + token) * args.ldy;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const int row = kTileRows * (first_tile + warp_tile + t) + lane / 4 + i / 2 * 8;
        if (row < f.rows) y[row] = sums[t][n][i];
      }
    }
  }
}

template <CodeKind kCode>
void launch_float(Queue& queue, const GemmArgs& args, Grid grid) {
  grid.x = blocks_for(args.weight.rows, kBlockRows);
  HS_LAUNCH(queue, grid, Grid{kThreads}, 0, float_gemm_kernel<kCode>, args);
}

}  // namespace

void float_gemm(Queue& queue, const GemmArgs& args) {
  const int64_t runs = args.chunks != nullptr ? args.max_chunks
                                              : (args.num_tokens + kBlockTokens - 1) / kBlockTokens;
  Grid grid{1, static_cast<unsigned>(runs), 1};
  switch (args.weight.code) {
    case CodeKind::kBF16:
      grid.x = blocks_for(args.weight.num_tiles(), kMmaTiles);
      HS_LAUNCH(queue, grid, Grid{kThreads}, 2 * kMmaStage, bf16_gemm_kernel, args);
      return;
    case CodeKind::kF32:
      return launch_float<CodeKind::kF32>(queue, args, grid);
    case CodeKind::kF16:
      return launch_float<CodeKind::kF16>(queue, args, grid);
    case CodeKind::kFp8:
      return launch_float<CodeKind::kFp8>(queue, args, grid);
    case CodeKind::kInt8:
      return launch_float<CodeKind::kInt8>(queue, args, grid);
    case CodeKind::kAffine4:
      return launch_float<CodeKind::kAffine4>(queue, args, grid);
    case CodeKind::kCodebook4:
      return launch_float<CodeKind::kCodebook4>(queue, args, grid);
  }
}

void gemm(Queue& queue, const GemmArgs& args) {
  if (args.weight.integer) return integer_gemm(queue, args);
  float_gemm(queue, args);
}

}  // namespace hotset::cuda
