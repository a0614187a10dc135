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

// Σ scale · sum of each group, in order, in place of the sums.
__device__ void run_sums(const RoundJob& job, float* meta) {
  const int num_groups = (job.cols + job.group - 1) / job.group;
  for (int g = static_cast<int>(threadIdx.x); g < num_groups; g += kThreads) {
    float total = 0;
    for (int s = g * job.subs_per_group; s < (g + 1) * job.subs_per_group; ++s) {
      total = __fmaf_rn(meta[2 * s], meta[2 * s + 1], total);
      meta[2 * s + 1] = total;
    }
  }
}

__global__ void __launch_bounds__(kThreads) round_kernel(const __grid_constant__ RoundArgs args) {
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
  if (args.sums == RoundedSums::kOwn) return;
  __syncthreads();
  run_sums(job, meta);
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
  // Few rows: four sub-blocks a warp. Running sums need a row in one block.
  unsigned per_row = 1;
  if (args.sums == RoundedSums::kOwn && args.num_rows <= 4 * kDecodeTokens) {
    for (int i = 0; i < args.num_jobs; ++i) {
      const unsigned subs = static_cast<unsigned>(args.jobs[i].to.sub_stride);
      per_row = std::max(per_row, blocks_for(subs, 4 * kThreads / kWarp));
    }
  }
  const Grid grid{static_cast<unsigned>(args.num_rows), static_cast<unsigned>(args.num_jobs),
                  per_row};
  HS_LAUNCH(queue, grid, Grid{kThreads}, 0, round_kernel, args);
}

}  // namespace hotset::cuda
