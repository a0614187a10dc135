// SPDX-License-Identifier: Apache-2.0
// A warp is a group and keeps its logits in shared memory. Each lane knows its own best; the warp's
// best is listed and taken out, and only the lane that had it looks through its logits again.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/top_logits.h"

namespace hotset::cuda {
namespace {

constexpr int kWarps = 4;  // of a block
constexpr int kMaxPerLane = 64;
constexpr float kNone = -__builtin_huge_valf();

struct Best {
  float logit;
  int index;  // the lane's how-manieth; −1: none is left
};

__device__ Best best_of_lane(const float (*values)[32], int count, int lane) {
  Best best{kNone, -1};
  for (int i = 0; i < count; ++i) {
    const float value = values[i][lane];
    if (value > best.logit) best = {value, i};
  }
  return best;
}

// Index 32·i + lane orders a group's ids.
__device__ int best_of_warp(float& logit, int order) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, logit, step);
    const int other_order = __shfl_xor_sync(0xffffffffu, order, step);
    if (other > logit || (other == logit && other_order < order)) {
      logit = other;
      order = other_order;
    }
  }
  return order;
}

__global__ void __launch_bounds__(kWarps * 32)
    top_logits_kernel(const float* all_logits, int64_t row_width, int64_t num_valid, int per_lane,
                      LogitGroup* groups) {
  extern __shared__ float shared[];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int group = static_cast<int>(blockIdx.x) * kWarps + warp;
  auto* values = reinterpret_cast<float(*)[32]>(shared + warp * per_lane * 32);
  const float* logits = all_logits + blockIdx.y * row_width;
  unsigned largest_bits = 0;
  for (int i = 0; i < per_lane; ++i) {
    const int64_t id = (static_cast<int64_t>(i) * kLogitGroups + group) * 32 + lane;
    const float value = id < num_valid ? logits[id] : kNone;
    values[i][lane] = value;
    if (id < num_valid) largest_bits = max(largest_bits, __float_as_uint(value) & 0x7fffffffu);
  }
  const bool not_finite = __any_sync(0xffffffffu, largest_bits >= 0x7f800000u) != 0;
  Best mine = best_of_lane(values, per_lane, lane);
  LogitGroup& out = groups[blockIdx.y * kLogitGroups + group];
  for (int n = 0; n <= kListedLogits; ++n) {
    float logit = mine.logit;
    const int order = best_of_warp(logit, mine.index < 0 ? 0x7fffffff : mine.index * 32 + lane);
    const bool is_none = order == 0x7fffffff;
    if (lane == 0) {
      if (n == kListedLogits) {
        out.next = logit;
      } else {
        out.ids[n] = is_none ? -1 : ((order / 32) * kLogitGroups + group) * 32 + order % 32;
        out.logits[n] = logit;
      }
    }
    if (!is_none && order % 32 == lane) {
      values[mine.index][lane] = kNone;
      mine = best_of_lane(values, per_lane, lane);
    }
  }
  if (lane == 0) out.not_finite = not_finite ? 1 : 0;
}

}  // namespace

int64_t max_top_logits() {
  return int64_t{kMaxPerLane} * kLogitGroups * 32;
}

void top_logits(Queue& queue, const float* logits, int64_t num_rows, int64_t row_width,
                int64_t num_valid, LogitGroup* groups) {
  const auto per_lane = static_cast<int>(blocks_for(num_valid, int64_t{kLogitGroups} * 32));
  const Grid grid{.x = kLogitGroups / kWarps, .y = static_cast<uint32_t>(num_rows)};
  HS_LAUNCH(queue, grid, Grid{.x = kWarps * 32}, int64_t{kWarps} * per_lane * 32 * 4,
            top_logits_kernel, logits, row_width, num_valid, per_lane, groups);
}

}  // namespace hotset::cuda
