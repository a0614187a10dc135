// SPDX-License-Identifier: Apache-2.0
// Experts for few tokens: each choice of each token for itself, straight from the address table.
// Two launches: gate·up·SwiGLU, whose blocks have just the 32 rows that down wants rounded
// together, then down, where the choices of a token meet in one block.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe_act.cuh"
#include "kernels/cuda/moe_launch.h"
#include "kernels/cuda/tile_products.cuh"

namespace hotset::cuda {
namespace {

constexpr int kGateUpWarps = 16;  // (gate, up) × 2 tiles × 4 shares of the columns
constexpr int kShares = 4;
constexpr int kGroupsAtOnce = 4 * kShares;
constexpr int kMaxDownWarps = 16;

__device__ inline const ExpertJob* job_of(const ExpertArgs& args, int expert) {
  for (int i = 0; i < args.num_jobs; ++i) {
    if (expert >= args.jobs[i].first_expert && expert < args.jobs[i].end_expert) {
      return &args.jobs[i];
    }
  }
  return nullptr;
}

__device__ inline const int32_t* order_of(const ExpertJob& job, const TileLayout& f, int expert,
                                          int which) {
  return job.orders != nullptr ? job.orders[3 * (expert - job.first_expert) + which] : f.order;
}

struct GateUpShared {
  float parts[4][kGroupsAtOnce][kTileRows];  // of (gate, up) × 2 tiles
  float scales[4][kGroupsAtOnce][kTileRows];
  float sums[kGateUpWarps][kTileRows];  // of float products
  float y[2][2 * kTileRows];
};

// What one warp multiplies.
struct WarpTile {
  const TileLayout& f;
  const std::byte* data;  // null: past the last tile
  const RoundedInput& input;
  int64_t input_row;
  const float* x;
  const int32_t* order;
};

// Groups base … base+15 of a tile, shared by four warps.
template <Kinds kKinds>
__device__ inline void integer_groups(const WarpTile& w, int base, int share, int lane,
                                      float (&parts)[kGroupsAtOnce][kTileRows],
                                      float (&scales)[kGroupsAtOnce][kTileRows]) {
  const int end = min(base + kGroupsAtOnce, w.f.num_groups);
  if (base + share >= end) return;
  const auto inputs = token_inputs<1>(
      w.input, [&](int) { return w.input_row; }, lane);
  const int row = 2 * (lane / 4);
  with_integer_code<kKinds>(w.f.code, [&]<CodeKind kCode>() {
    for_groups<kCode, 1>(w.f, w.data, inputs, base + share, end, kShares, lane,
                         [&](int g, const GroupRows& rows, const GroupPart<1>& part) {
                           if (lane % 4 != 0) return;
                           parts[g - base][row] = part.sum[0][0];
                           parts[g - base][row + 1] = part.sum[0][2];
                           scales[g - base][row] = rows.scale[0];
                           scales[g - base][row + 1] = rows.scale[1];
                         });
  });
}

// The chain of one row goes on by groups base … base+15, or a float product's shares are added.
__device__ inline float join_groups(const TileLayout& f, const GateUpShared& shared, int base,
                                    int tile, int row, float y) {
  if (f.integer) {
    const int count = min(kGroupsAtOnce, f.num_groups - base);
#pragma unroll 4
    for (int g = 0; g < count; ++g) {
      y = __fmaf_rn(shared.parts[tile][g][row], shared.scales[tile][g][row], y);
    }
  } else if (base == 0) {
    for (int s = 0; s < kShares; ++s) y += shared.sums[tile * kShares + s][row];
  }
  return y;
}

template <Kinds kKinds>
__global__ void __launch_bounds__(kWarp* kGateUpWarps, kKinds == kAllKinds ? 1 : 2)
    gate_up_kernel(const __grid_constant__ ExpertArgs args) {
  __shared__ GateUpShared shared;
  extern __shared__ __align__(16) int8_t rounded[];
  const int64_t pair = blockIdx.y;
  const int expert = args.ids[pair];
  if (expert < 0) return;
  const ExpertJob* found = job_of(args, expert);
  if (found == nullptr) return;
  const ExpertJob& job = *found;
  const ExpertAddress address = args.address_of(pair, expert);
  const int first_row = kSubBlock * static_cast<int>(blockIdx.x);
  if (address.gate == nullptr || first_row >= job.covered_rows()) return;

  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  const bool is_up = warp >= kGateUpWarps / 2;
  const int slot = warp / kShares, share = warp % kShares;  // slot: of GateUpShared::parts
  const TileLayout& f = is_up ? job.up : job.gate;
  const int tile = 2 * static_cast<int>(blockIdx.x) + slot % 2;
  const int64_t token = pair / args.top_k;
  const bool per_slot = is_up ? job.up_per_slot : job.gate_per_slot;
  const bool exists = tile < f.num_tiles();
  const std::byte* data = (is_up ? address.up : address.gate) + tile * f.tile_bytes;
  const float* x = args.x + token * args.hidden;
  RoundedInput input = is_up ? job.up_in : job.gate_in;
  if (exists) prefetch_bytes(data + share * (f.tile_bytes / kShares), f.tile_bytes / kShares, lane);
  if (args.prefetches_down) {
    const int64_t part = job.down.num_tiles() * job.down.tile_bytes / (gridDim.x * kGateUpWarps);
    prefetch_bytes(address.down + (blockIdx.x * kGateUpWarps + warp) * part, part, lane);
  }
  if (args.rounds) {
    input = {rounded, nullptr, args.cut.num_subs()};
    input.meta = reinterpret_cast<float*>(rounded + input.sub_stride * kSubBlock);
    round_row(args.cut, nullptr, x, nullptr, warp, kGateUpWarps, lane, input.q, input.meta);
    __syncthreads();
  }
  const int64_t input_row = args.rounds ? 0 : per_slot ? pair : token;
  const WarpTile mine{f, data, input, input_row, x, order_of(job, f, expert, is_up ? 1 : 0)};
  // The first two warps each own 32 rows: gate's and up's.
  const TileLayout& joined = warp == 1 ? job.up : job.gate;
  const int joined_tile = 2 * warp + lane / kTileRows;
  float y = 0;
  const int num_groups =
      max(job.gate.integer ? job.gate.num_groups : 1, job.up.integer ? job.up.num_groups : 1);
  for (int base = 0; base < num_groups; base += kGroupsAtOnce) {
    if (exists && f.integer) {
      integer_groups<kKinds>(mine, base, share, lane, shared.parts[slot], shared.scales[slot]);
    } else if (exists && base == 0) {
      const float* const x[1] = {mine.x};
      float_share<kKinds, 1>(f, mine.data, share, kShares, x, mine.order, lane, shared.sums[warp]);
    }
    __syncthreads();
    if (warp < 2 && first_row + lane < job.gate.rows) {
      y = join_groups(joined, shared, base, joined_tile, lane % kTileRows, y);
    }
    __syncthreads();
  }
  if (warp < 2) shared.y[warp][lane] = y;
  __syncthreads();
  if (warp == 0) finish_rows(args, job, shared.y[0], shared.y[1], pair, first_row, lane);
}

// One choice's 16 outputs of one tile, by one warp.
template <Kinds kKinds>
__device__ inline void down_tile(const ExpertArgs& args, const ExpertJob& job,
                                 const std::byte* matrix, int expert, int64_t pair, int tile,
                                 int lane, float* out) {
  const TileLayout& f = job.down;
  const std::byte* data = matrix + tile * f.tile_bytes;
  prefetch_bytes(data, f.tile_bytes, lane);
  if (!f.integer) {
    const float* const x[1] = {args.act + pair * args.max_width};
    float_share<kKinds, 1>(f, data, 0, 1, x, order_of(job, f, expert, 2), lane, out);
    return;
  }
  const auto inputs = token_inputs<1>(
      args.act_in, [&](int) { return pair; }, lane);
  float y[2] = {};
  with_integer_code<kKinds>(f.code, [&]<CodeKind kCode>() {
    for_groups<kCode, 1>(f, data, inputs, 0, f.num_groups, 1, lane,
                         [&](int, const GroupRows& rows, const GroupPart<1>& part) {
                           y[0] = __fmaf_rn(part.sum[0][0], rows.scale[0], y[0]);
                           y[1] = __fmaf_rn(part.sum[0][2], rows.scale[1], y[1]);
                         });
  });
  if (lane % 4 == 0) {
    out[2 * (lane / 4)] = y[0];
    out[2 * (lane / 4) + 1] = y[1];
  }
}

template <Kinds kKinds>
__global__ void __launch_bounds__(kWarp* kMaxDownWarps)
    down_kernel(const __grid_constant__ ExpertArgs args) {
  extern __shared__ float out[];  // [top_k][16]
  const int tile = static_cast<int>(blockIdx.x);
  const int64_t token = blockIdx.y;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const int num_warps = static_cast<int>(blockDim.x) / kWarp;
  for (int k = thread / kWarp; k < args.top_k; k += num_warps) {
    const int64_t pair = token * args.top_k + k;
    const int expert = args.ids[pair];
    const ExpertJob* job = expert < 0 ? nullptr : job_of(args, expert);
    if (job == nullptr) continue;
    const std::byte* matrix = args.address_of(pair, expert).down;
    if (matrix == nullptr) continue;
    down_tile<kKinds>(args, *job, matrix, expert, pair, tile, lane, out + k * kTileRows);
    __syncwarp();
    const int row = tile * kTileRows + lane;
    if (args.rows != nullptr && lane < kTileRows && row < args.hidden) {
      args.rows[pair * args.hidden + row] = out[k * kTileRows + lane];
    }
  }
  if (args.rows != nullptr) return;
  __syncthreads();
  const int row = tile * kTileRows + thread;
  if (thread >= kTileRows || row >= args.hidden) return;
  float y = 0;
  for (int k = 0; k < args.top_k; ++k) {
    const int64_t pair = token * args.top_k + k;
    const bool here = args.ids[pair] >= 0;
    if (!here && args.elsewhere == nullptr) continue;
    const float value =
        here ? out[k * kTileRows + thread] : args.elsewhere[pair * args.hidden + row];
    y = __fmaf_rn(args.weights[pair], value, y);
  }
  args.y[token * args.hidden + row] = y;
}

constexpr Kinds kFour = kind_bit(CodeKind::kAffine4, true);
constexpr Kinds kEight = kind_bit(CodeKind::kInt8, true);

Kinds kinds_of(const ExpertArgs& args) {
  Kinds kinds = 0;
  for (int i = 0; i < args.num_jobs; ++i) {
    const ExpertJob& job = args.jobs[i];
    for (const TileLayout* f : {&job.gate, &job.up, &job.down}) {
      kinds |= kind_bit(f->code, f->integer);
    }
  }
  return kinds;
}

}  // namespace

void gate_up_products(Queue& queue, const ExpertArgs& args) {
  int rows = 0;
  for (int i = 0; i < args.num_jobs; ++i) rows = std::max(rows, args.jobs[i].covered_rows());
  const Grid grid{blocks_for(rows, kSubBlock), static_cast<unsigned>(args.num_tokens * args.top_k),
                  1};
  const Kinds kinds = kinds_of(args);
  const auto kernel = (kinds & ~kFour) == 0    ? gate_up_kernel<kFour>
                      : (kinds & ~kEight) == 0 ? gate_up_kernel<kEight>
                                               : gate_up_kernel<kAllKinds>;
  const int64_t shared = args.rounds ? rounded_row_bytes(args.cut) : 0;
  HS_LAUNCH(queue, grid, Grid{kWarp * kGateUpWarps}, shared, kernel, args);
}

void down_products(Queue& queue, const ExpertArgs& args) {
  const Grid grid{blocks_for(args.hidden, kTileRows), static_cast<unsigned>(args.num_tokens), 1};
  const auto warps = static_cast<unsigned>(std::min(args.top_k, kMaxDownWarps));
  const Kinds kinds = kinds_of(args);
  const auto kernel = (kinds & ~kFour) == 0    ? down_kernel<kFour>
                      : (kinds & ~kEight) == 0 ? down_kernel<kEight>
                                               : down_kernel<kAllKinds>;
  HS_LAUNCH(queue, grid, Grid{kWarp * warps}, int64_t{4} * args.top_k * kTileRows, kernel, args);
}

}  // namespace hotset::cuda
