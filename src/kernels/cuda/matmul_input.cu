// SPDX-License-Identifier: Apache-2.0
// The input of integer products: rounded to int8 per sub-block, as kernels/cpu/matmul_rows_body.h
// does it, bit for bit. A block a row; a warp rounds a sub-block at a time.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_device.cuh"
#include "kernels/cuda/matmul_launch.h"

namespace hotset::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) round_kernel(const __grid_constant__ RoundArgs args) {
  start_next();
  wait_for_earlier();
  const RoundJob& job = args.jobs[blockIdx.y];
  const int64_t row = blockIdx.x;
  const int32_t* order = job.order;
  if (args.expert_of != nullptr) {
    const int expert = args.expert_of[row];
    if (expert < job.first_expert || expert >= job.end_expert) return;
    if (job.orders != nullptr) order = job.orders[3 * (expert - job.first_expert) + job.which];
  }
  const int64_t from = args.source != nullptr ? args.source[row] : row / args.rows_per_x;
  const float* x = args.x + from * args.ldx;
  const float* up = args.up != nullptr ? args.up + from * args.ldx : nullptr;
  int8_t* q = job.to.q + row * job.to.sub_stride * kSubBlock;
  float* meta = job.to.meta + row * job.to.sub_stride * 2;
  constexpr int kWarps = kThreads / kWarp;
  const RoundedCut cut{order, job.group, job.subs_per_group, job.cols};
  const int first = static_cast<int>(blockIdx.z) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  round_row(cut, order, x, up, first, kWarps * static_cast<int>(gridDim.z),
            static_cast<int>(threadIdx.x) % kWarp, q, meta);
}

// Whole sub-blocks of columns in their own order: a lane has four columns, eight lanes a sub-block.
bool has_fours(const RoundArgs& args) {
  bool fours = args.up == nullptr && args.expert_of == nullptr && args.source == nullptr &&
               args.rows_per_x == 1 && args.ldx % 4 == 0 &&
               reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
  for (int i = 0; i < args.num_jobs; ++i) {
    const RoundJob& job = args.jobs[i];
    fours &= job.order == nullptr && job.group % kSubBlock == 0 && job.cols % job.group == 0;
  }
  return fours;
}

__global__ void __launch_bounds__(kThreads)
    round_fours_kernel(const __grid_constant__ RoundArgs args) {
  start_next();
  wait_for_earlier();
  constexpr int kLanes = kSubBlock / 4;
  const RoundJob& job = args.jobs[blockIdx.y];
  const int64_t row = blockIdx.x;
  const float* x = args.x + row * args.ldx;
  int8_t* q = job.to.q + row * job.to.sub_stride * kSubBlock;
  float* meta = job.to.meta + row * job.to.sub_stride * 2;
  const int thread = static_cast<int>(threadIdx.x);
  // All lanes of a warp take part in every turn.
  for (int four = thread; four - thread % kWarp < job.cols / 4; four += kThreads) {
    const bool inside = four < job.cols / 4;
    float4 v = {0, 0, 0, 0};
    if (inside) v = *reinterpret_cast<const float4*>(x + 4 * four);
    const float value[4] = {v.x, v.y, v.z, v.w};
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) bits = max(bits, __float_as_uint(value[i]) & 0x7fffffffu);
    for (int step = 1; step < kLanes; step *= 2) {
      bits = max(bits, __shfl_xor_sync(kAllLanes, bits, step));
    }
    const SubBlockScale scale = sub_block_scale(bits);
    int rounded[4], sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      rounded[i] = scale.rounded(value[i]);
      sum += rounded[i];
    }
    for (int step = 1; step < kLanes; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    if (!inside) continue;
    *reinterpret_cast<char4*>(q + 4 * four) = {
        static_cast<signed char>(rounded[0]), static_cast<signed char>(rounded[1]),
        static_cast<signed char>(rounded[2]), static_cast<signed char>(rounded[3])};
    if (four % kLanes == 0) {
      *reinterpret_cast<float2*>(meta + four / kLanes * 2) = {scale.scale, static_cast<float>(sum)};
    }
  }
}

int64_t aligned(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

}  // namespace

int64_t rounded_bytes(int64_t rows, int64_t subs) {
  return aligned(rows * subs * kSubBlock) + aligned(rows * subs * 8);
}

RoundedInput take_rounded(Queue& queue, int64_t rows, int64_t subs) {
  return {.q = queue.take<int8_t>(rows * subs * kSubBlock),
          .meta = queue.take<float>(rows * subs * 2),
          .sub_stride = static_cast<int32_t>(subs)};
}

RoundJob round_job(const TileLayout& f, const RoundedInput& to) {
  return {.to = to,
          .order = f.order,
          .group = f.group,
          .subs_per_group = f.subs_per_group,
          .cols = f.cols};
}

void round_rows(Queue& queue, const RoundArgs& args) {
  if (args.num_rows == 0 || args.num_jobs == 0) return;
  if (args.num_rows > 4 * kDecodeTokens && has_fours(args)) {
    const Grid grid{static_cast<unsigned>(args.num_rows), static_cast<unsigned>(args.num_jobs), 1};
    HS_LAUNCH_EARLY(queue, grid, Grid{kThreads}, 0, round_fours_kernel, args);
    return;
  }
  // Few rows: four sub-blocks a warp.
  unsigned per_row = 1;
  if (args.num_rows <= 4 * kDecodeTokens) {
    for (int i = 0; i < args.num_jobs; ++i) {
      const unsigned subs = static_cast<unsigned>(args.jobs[i].to.sub_stride);
      per_row = std::max(per_row, blocks_for(subs, 4 * kThreads / kWarp));
    }
  }
  const Grid grid{static_cast<unsigned>(args.num_rows), static_cast<unsigned>(args.num_jobs),
                  per_row};
  HS_LAUNCH_EARLY(queue, grid, Grid{kThreads}, 0, round_kernel, args);
}

}  // namespace hotset::cuda
