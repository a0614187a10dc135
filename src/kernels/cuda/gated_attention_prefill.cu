// SPDX-License-Identifier: Apache-2.0
// Attention of long parts by mma.m16n8k16: a block takes rows (token, head of one KV head's group)
// of a sequence and a split of the positions, a warp sixteen of the rows and all 64 keys of a tile.
//
// Queries and weights are rounded to the pages' 16-bit type, as K and V were when they were stored:
// half the products of attention_tensor, which keeps two halves of both for the few rows of a
// decode step. Reading shared memory bounds a warp of sixteen rows: a tile of K or V feeds two
// products a load, and queries stay there because the sums need the registers.
//
// With two stages a tile of K and V is on its way while the one before is in use, and one barrier a
// tile suffices; with one, K's place is filled while V is in use and the other way round.
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/gated_attention_parts.cuh"

namespace hotset::cuda {
namespace {

template <typename T, int kDimension, int kNumWarps, int kNumStages>
struct PrefillLayout {
  using Value = T;
  static constexpr int kDim = kDimension;
  static constexpr int kThreads = kNumWarps * kWarp;
  static constexpr int kStages = kNumStages;
  static constexpr int kBlockRows = 16 * kNumWarps;
  static constexpr int kTile = 64;
  static constexpr int kChunks = kDim / 8;
  static constexpr int kQueryBytes = kBlockRows * kDim * 2;
  static constexpr int kTileBytes = kTile * kDim * 2;
  static constexpr int kSharedBytes = kQueryBytes + kStages * 2 * kTileBytes;
};

// What a thread keeps of rows lane/4 and lane/4 + 8 of its warp's. Tops are scores not yet scaled.
template <typename L>
struct Running {
  float top[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0f, 0.0f};  // of this thread's keys
  float sums[L::kDim / 8][4] = {};
};

template <typename L>
using Scores = float[L::kTile / 8][4];

// 2^x; 0 for −∞.
__device__ __forceinline__ float power_of_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <typename L>
__device__ __forceinline__ void load_rounded_queries(const AttentionTask& task, const Block& block,
                                                     std::byte* to) {
  using Value = typename L::Value;
#pragma unroll 4
  for (int at = static_cast<int>(threadIdx.x); at < L::kBlockRows * L::kChunks; at += L::kThreads) {
    const int i = at / L::kChunks, chunk = at % L::kChunks;
    const int64_t row = global_row(task, block, i);
    uint4 values = {};
    if (row >= 0) {
      const auto* q = reinterpret_cast<const float4*>(task.out + row * L::kDim + chunk * 8);
      const float4 a = q[0], b = q[1];
      values = {rounded_pair<Value>(a.x, a.y), rounded_pair<Value>(a.z, a.w),
                rounded_pair<Value>(b.x, b.y), rounded_pair<Value>(b.z, b.w)};
    }
    *reinterpret_cast<uint4*>(to + chunk_offset<L>(i, chunk)) = values;
  }
}

// Tiles begin at multiples of a row, so that a step along a row is an exclusive or with a constant
// and one along a column an addition: with two warps a scheduler every instruction counts.
template <typename L>
__device__ __forceinline__ void score_keys(uint32_t queries, uint32_t keys, Scores<L>& scores) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int q_row = static_cast<int>(threadIdx.x) / kWarp * 16 + lane % 16;
  const uint32_t query_at = queries + chunk_offset<L>(q_row, lane / 16);
  const uint32_t key_at = keys + chunk_offset<L>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
  for (int d = 0; d < L::kDim / 16; ++d) {
    uint32_t q[4];
    load_matrices(q, query_at ^ (32u * d));
#pragma unroll
    for (int n = 0; n < L::kTile / 16; ++n) {
      uint32_t k[4];
      load_matrices(k, (key_at ^ (32u * d)) + 16u * n * L::kChunks * 16);
      multiply_add<typename L::Value>(scores[2 * n], q, k[0], k[1]);
      multiply_add<typename L::Value>(scores[2 * n + 1], q, k[2], k[3]);
    }
  }
}

// −∞ behind the last position that a row sees, counted from the tile's first.
template <typename L>
__device__ __forceinline__ void mask(const int (&last)[2], Scores<L>& scores) {
  const int first_key = 2 * (static_cast<int>(threadIdx.x) % 4);
#pragma unroll
  for (int n = 0; n < L::kTile / 8; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (8 * n + first_key + c % 2 > last[c / 2]) scores[n][c] = -INFINITY;
    }
  }
}

// Scores become weights 2^(scale · (score − top)); what was summed before follows a new top.
template <typename L>
__device__ __forceinline__ void weigh(float scale, Scores<L>& scores, Running<L>& running) {
  float keep[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float top = running.top[i];
#pragma unroll
    for (int n = 0; n < L::kTile / 8; ++n) {
      top = fmaxf(top, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
    }
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
    const float origin = top == -INFINITY ? 0.0f : top * scale;
    keep[i] = power_of_2(fmaf(running.top[i], scale, -origin));
    running.top[i] = top;
    float total = 0.0f;
#pragma unroll
    for (int n = 0; n < L::kTile / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = scores[n][2 * i + c];
        x = power_of_2(fmaf(x, scale, -origin));
        total += x;
      }
    }
    running.total[i] = fmaf(running.total[i], keep[i], total);
  }
  if (__all_sync(kAllLanes, keep[0] == 1.0f && keep[1] == 1.0f)) return;
#pragma unroll
  for (int n = 0; n < L::kDim / 8; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) running.sums[n][c] *= keep[c / 2];
  }
}

template <typename L>
__device__ __forceinline__ void add_values(uint32_t values, const Scores<L>& weights,
                                           Running<L>& running) {
  using Value = typename L::Value;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const uint32_t value_at = values + chunk_offset<L>(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < L::kTile / 16; ++k) {
    const uint32_t w[4] = {rounded_pair<Value>(weights[2 * k][0], weights[2 * k][1]),
                           rounded_pair<Value>(weights[2 * k][2], weights[2 * k][3]),
                           rounded_pair<Value>(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                           rounded_pair<Value>(weights[2 * k + 1][2], weights[2 * k + 1][3])};
#pragma unroll
    for (int n = 0; n < L::kDim / 16; ++n) {
      uint32_t v[4];
      load_transposed(v, (value_at ^ (32u * n)) + 16u * k * L::kChunks * 16);
      multiply_add<Value>(running.sums[2 * n], w, v[0], v[1]);
      multiply_add<Value>(running.sums[2 * n + 1], w, v[2], v[3]);
    }
  }
}

template <typename L>
__device__ __forceinline__ void write_rows(const AttentionTask& task, const Block& block, int split,
                                           Running<L>& running) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float total = running.total[i];
    total += __shfl_xor_sync(kAllLanes, total, 1);
    total += __shfl_xor_sync(kAllLanes, total, 2);
    const int64_t row = global_row(task, block, warp * 16 + lane / 4 + 8 * i);
    if (row < 0) continue;
    if (task.splits > 1 && lane % 4 == 0) {
      task.weights[row * task.splits + split] = {running.top[i] * task.scale, total};
    }
#pragma unroll
    for (int n = 0; n < L::kDim / 8; ++n) {
      put_pair(task, row, split, 8 * n + 2 * (lane % 4), total, running.sums[n][2 * i],
               running.sums[n][2 * i + 1]);
    }
  }
}

// Of a warp's rows the last position that each of the thread's two sees, and the least of all.
struct Sight {
  int64_t last[2];
  int64_t least;
};

template <typename L>
__device__ __forceinline__ Sight sight_of(const AttentionTask& task, const SequenceRows& rows,
                                          const Block& block) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first = block.first + static_cast<int>(threadIdx.x) / kWarp * 16;
  Sight sight;
  for (int i = 0; i < 2; ++i) {
    const int r = first + lane / 4 + 8 * i;
    sight.last[i] =
        r < block.count ? min(rows.first_position + r / task.group, block.part.end - 1) : -1;
  }
  sight.least = min(rows.first_position + first / task.group, block.part.end - 1);
  return sight;
}

// Scores of a tile become weights.
template <typename L>
__device__ __forceinline__ void weigh_tile(const AttentionTask& task, const Sight& sight,
                                           int64_t begin, Scores<L>& scores, Running<L>& running) {
  if (begin + L::kTile - 1 > sight.least) {
    const int last[2] = {
        static_cast<int>(max(min(sight.last[0] - begin, int64_t{L::kTile}), int64_t{-1})),
        static_cast<int>(max(min(sight.last[1] - begin, int64_t{L::kTile}), int64_t{-1}))};
    mask<L>(last, scores);
  }
  weigh<L>(task.scale, scores, running);
}

// Asks for a tile of K, or of V, like ask_for_tile; a whole one by addresses that differ by
// constants.
template <typename L>
__device__ __forceinline__ void ask(const AttentionTask& task, const SequenceRows& rows,
                                    const Block& block, int64_t begin, int plane, uint32_t to) {
  constexpr int kRowsAtOnce = L::kThreads / L::kChunks;
  if (kRowsAtOnce % 8 != 0 || block.part.end - begin < L::kTile) {
    return ask_for_tile<L>(task, rows, block, begin, block.part.end, plane, to);
  }
  const auto thread = static_cast<int>(threadIdx.x);
  const std::byte* from =
      key_address(task, rows, begin, block.kv_head) + plane * task.plane_bytes + thread * 16;
  to += chunk_offset<L>(thread / L::kChunks, thread % L::kChunks);
#pragma unroll
  for (int i = 0; i < L::kTile; i += kRowsAtOnce) {
    copy_async(to + i * L::kChunks * 16, from + i * L::kChunks * 16, true);
  }
  commit_async();
}

template <typename L>
__device__ __forceinline__ void attend(const AttentionTask& task, const SequenceRows& rows,
                                       const Block& block, int split, std::byte* shared) {
  const uint32_t queries = shared_address(shared), tiles = queries + L::kQueryBytes;
  ask<L>(task, rows, block, block.part.begin, 0, tiles);
  ask<L>(task, rows, block, block.part.begin, 1, tiles + L::kTileBytes);
  load_rounded_queries<L>(task, block, shared);
  const Sight sight = sight_of<L>(task, rows, block);
  Running<L> running;
  uint32_t stage = 0;
  for (int64_t begin = block.part.begin; begin < block.part.end; begin += L::kTile) {
    const uint32_t keys = tiles + stage * 2 * L::kTileBytes, values = keys + L::kTileBytes;
    Scores<L> scores = {};
    if constexpr (L::kStages == 2) {
      wait_async<0>();
      __syncthreads();
      stage ^= 1;
      const uint32_t later = tiles + stage * 2 * L::kTileBytes;
      ask<L>(task, rows, block, begin + L::kTile, 0, later);
      ask<L>(task, rows, block, begin + L::kTile, 1, later + L::kTileBytes);
      score_keys<L>(queries, keys, scores);
      weigh_tile<L>(task, sight, begin, scores, running);
      add_values<L>(values, scores, running);
    } else {
      wait_async<1>();
      __syncthreads();
      score_keys<L>(queries, keys, scores);
      __syncthreads();
      ask<L>(task, rows, block, begin + L::kTile, 0, keys);
      weigh_tile<L>(task, sight, begin, scores, running);
      wait_async<1>();
      __syncthreads();
      add_values<L>(values, scores, running);
      __syncthreads();
      ask<L>(task, rows, block, begin + L::kTile, 1, values);
    }
  }
  write_rows<L>(task, block, split, running);
}

// Block (x, y, z): a tile of rows, the last ones first, since they see most; KV head and sequence;
// split.
template <typename L>
__global__ void __launch_bounds__(L::kThreads) attention_prefill_kernel(AttentionTask task) {
  extern __shared__ __align__(1024) uint4 attention_shared[];
  const auto split = static_cast<int>(blockIdx.z);
  const SequenceRows rows = task.sequences[blockIdx.y / task.kv_heads];
  const Block block = block_of<L>(task, rows, split);
  if (block.first >= block.count) return;
  if (block.part.begin < block.part.end) {
    attend<L>(task, rows, block, split, reinterpret_cast<std::byte*>(attention_shared));
  } else {
    write_nothing_seen<L>(task, block, split);
  }
}

template <typename L>
void launch_layout(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  const Grid grid{
      .x = blocks_for(static_cast<int64_t>(batch.max_tokens) * task.group, L::kBlockRows),
      .y = static_cast<unsigned>(batch.num_sequences) * static_cast<unsigned>(task.kv_heads),
      .z = static_cast<unsigned>(task.splits)};
  HS_LAUNCH(queue, grid, Grid{.x = L::kThreads}, L::kSharedBytes, attention_prefill_kernel<L>,
            task);
}

// The largest layout that the device has shared memory for: 192, 128 or 96 KiB with heads of 256.
template <typename T>
void launch_type(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  const int64_t shared = queue.runtime.info().max_shared_bytes;
  using Large = PrefillLayout<T, 256, 8, 2>;
  using Middle = PrefillLayout<T, 256, 8, 1>;
  if (task.dim == 64) return launch_layout<PrefillLayout<T, 64, 8, 2>>(queue, task, batch);
  if (task.dim == 128) return launch_layout<PrefillLayout<T, 128, 8, 2>>(queue, task, batch);
  if (shared >= Large::kSharedBytes) return launch_layout<Large>(queue, task, batch);
  if (shared >= Middle::kSharedBytes) return launch_layout<Middle>(queue, task, batch);
  return launch_layout<PrefillLayout<T, 256, 4, 1>>(queue, task, batch);
}

}  // namespace

void attention_prefill(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  if (task.type == KvType::kBF16) {
    launch_type<__nv_bfloat16>(queue, task, batch);
  } else {
    launch_type<__half>(queue, task, batch);
  }
}

}  // namespace hotset::cuda
