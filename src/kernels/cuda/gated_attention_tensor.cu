// SPDX-License-Identifier: Apache-2.0
// Attention by mma.m16n8k16. A block takes rows (token, head of one KV head's group) of a sequence
// and a split of the positions; four warps share it out as row warps × key warps:
//
//   1 × 4   up to 16 rows   16 of a tile's 64 keys a warp   decode: one KV head's queries together
//   2 × 2   up to 32 rows   32 of them
//
// More rows are the work of attention_prefill.
//
// K and V are exact in 16 bits; queries and weights are two 16-bit halves, high and low, so that a
// score and a sum keep 16 bits or more. A tile of K, then of V, is on its way while the other one
// is in use. Key warps have a softmax of their own and are merged at the end.
#include <algorithm>

#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/gated_attention_parts.cuh"

namespace hotset::cuda {
namespace {

constexpr int kThreads = kAttentionThreads;

// What a thread of a warp keeps: of two rows, lane/4 and lane/4 + 8 of the warp's sixteen.
template <typename L>
struct Running {
  float top[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0f, 0.0f};  // of this thread's keys
  float sums[L::kDim / 8][4] = {};
};

template <typename L>
using Scores = float[L::kWarpKeys / 8][4];

// q·kᵀ of the warp's rows and keys. With few keys a warp, the high and low halves have sums of
// their own, so that more products are under way at once.
template <typename L>
__device__ __forceinline__ void score_keys(uint32_t high, uint32_t low, uint32_t keys, int row_warp,
                                           int key_warp, Scores<L>& scores) {
  constexpr bool kApart = L::kWarpKeys == 16;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int q_row = row_warp * 16 + lane % 16;
  const int k_row = key_warp * L::kWarpKeys + lane / 16 * 8 + lane % 8;
  Scores<L> rest = {};
  auto& small = kApart ? rest : scores;
#pragma unroll 4
  for (int d = 0; d < L::kChunks; d += 2) {
    uint32_t a[4], b[4];
    load_matrices(a, high + chunk_offset<L>(q_row, d + lane / 16));
    load_matrices(b, low + chunk_offset<L>(q_row, d + lane / 16));
#pragma unroll
    for (int n = 0; n < L::kWarpKeys / 16; ++n) {
      uint32_t k[4];
      load_matrices(k, keys + chunk_offset<L>(k_row + 16 * n, d + lane / 8 % 2));
      multiply_add<typename L::Value>(scores[2 * n], a, k[0], k[1]);
      multiply_add<typename L::Value>(scores[2 * n + 1], a, k[2], k[3]);
      multiply_add<typename L::Value>(small[2 * n], b, k[0], k[1]);
      multiply_add<typename L::Value>(small[2 * n + 1], b, k[2], k[3]);
    }
  }
  if constexpr (kApart) {
#pragma unroll
    for (int n = 0; n < L::kWarpKeys / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) scores[n][c] += rest[n][c];
    }
  }
}

// Scores become weights 2^(score − top); what was summed before follows a new top. last[i]: the
// last position that row i sees, counted from the warp's first key.
template <typename L>
__device__ __forceinline__ void weigh(const AttentionTask& task, const int64_t (&last)[2],
                                      Scores<L>& scores, Running<L>& running) {
  const int first_key = 2 * (static_cast<int>(threadIdx.x) % 4);
  float keep[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float top = running.top[i];
#pragma unroll
    for (int n = 0; n < L::kWarpKeys / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = scores[n][2 * i + c];
        x = 8 * n + first_key + c <= last[i] ? x * task.scale : -INFINITY;
        top = fmaxf(top, x);
      }
    }
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
    const float origin = top == -INFINITY ? 0.0f : top;
    keep[i] = exp2f(running.top[i] - origin);
    running.top[i] = top;
    float total = 0.0f;
#pragma unroll
    for (int n = 0; n < L::kWarpKeys / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = scores[n][2 * i + c];
        x = exp2f(x - origin);
        total += x;
      }
    }
    running.total[i] = fmaf(running.total[i], keep[i], total);
  }
  if (__all_sync(kAllLanes, keep[0] == 1.0f && keep[1] == 1.0f)) return;
#pragma unroll
  for (int n = 0; n < L::kDim / 8; ++n) {
    running.sums[n][0] *= keep[0];
    running.sums[n][1] *= keep[0];
    running.sums[n][2] *= keep[1];
    running.sums[n][3] *= keep[1];
  }
}

// sums += weights · V.
template <typename L>
__device__ __forceinline__ void add_values(uint32_t values, int key_warp, const Scores<L>& weights,
                                           Running<L>& running) {
  using Value = typename L::Value;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int k = 0; k < L::kWarpKeys / 16; ++k) {
    uint32_t high[4], low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* pair = &weights[2 * k + i / 2][2 * (i % 2)];
      const Halves<Value> halves = split_pair<Value>(pair[0], pair[1]);
      high[i] = halves.high;
      low[i] = halves.low;
    }
    const int row = key_warp * L::kWarpKeys + 16 * k + lane % 16;
#pragma unroll
    for (int n = 0; n < L::kDim / 16; ++n) {
      uint32_t v[4];
      load_transposed(v, values + chunk_offset<L>(row, 2 * n + lane / 16));
      multiply_add<Value>(running.sums[2 * n], high, v[0], v[1]);
      multiply_add<Value>(running.sums[2 * n + 1], high, v[2], v[3]);
      multiply_add<Value>(running.sums[2 * n], low, v[0], v[1]);
      multiply_add<Value>(running.sums[2 * n + 1], low, v[2], v[3]);
    }
  }
}

// What each key warp's sums count of a row, in place of its top; the row's total, in place of the
// first warp's.
template <typename L>
__device__ __forceinline__ void weigh_key_warps(const AttentionTask& task, const Block& block,
                                                int split, float* tops, float* totals) {
  const auto i = static_cast<int>(threadIdx.x);
  if (i >= L::kBlockRows) return;
  float top = -INFINITY, total = 0.0f;
#pragma unroll
  for (int w = 0; w < L::kKeyWarps; ++w) top = fmaxf(top, tops[w * L::kBlockRows + i]);
  const float origin = top == -INFINITY ? 0.0f : top;
#pragma unroll
  for (int w = 0; w < L::kKeyWarps; ++w) {
    const int at = w * L::kBlockRows + i;
    tops[at] = exp2f(tops[at] - origin);
    total = fmaf(tops[at], totals[at], total);
  }
  totals[i] = total;
  const int64_t row = global_row(task, block, i);
  if (task.splits > 1 && row >= 0) task.weights[row * task.splits + split] = {top, total};
}

// Key warps brought to one top through shared memory, whose tiles are no longer needed.
template <typename L>
__device__ __forceinline__ void merge_rows(const AttentionTask& task, const Block& block, int warp,
                                           int split, float* shared, const Running<L>& running) {
  float* sums = shared;                                         // [key warp][row][dim]
  float* tops = sums + L::kKeyWarps * L::kBlockRows * L::kDim;  // [key warp][row]
  float* totals = tops + L::kKeyWarps * L::kBlockRows;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row_warp = warp % L::kRowWarps, key_warp = warp / L::kRowWarps;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = key_warp * L::kBlockRows + row_warp * 16 + lane / 4 + 8 * i;
    if (lane % 4 == 0) {
      tops[at] = running.top[i];
      totals[at] = running.total[i];
    }
#pragma unroll
    for (int n = 0; n < L::kDim / 8; ++n) {
      *reinterpret_cast<float2*>(sums + at * L::kDim + 8 * n + 2 * (lane % 4)) =
          make_float2(running.sums[n][2 * i], running.sums[n][2 * i + 1]);
    }
  }
  __syncthreads();
  weigh_key_warps<L>(task, block, split, tops, totals);
  __syncthreads();
  constexpr int kQuads = L::kDim / 4;
#pragma unroll 2
  for (int at = static_cast<int>(threadIdx.x); at < L::kBlockRows * kQuads; at += kThreads) {
    const int i = at / kQuads, column = at % kQuads * 4;
    const int64_t row = global_row(task, block, i);
    if (row < 0) break;
    float4 sum = {};
#pragma unroll
    for (int w = 0; w < L::kKeyWarps; ++w) {
      const int from = w * L::kBlockRows + i;
      const float4 x = *reinterpret_cast<const float4*>(sums + from * L::kDim + column);
      sum = {fmaf(tops[from], x.x, sum.x), fmaf(tops[from], x.y, sum.y),
             fmaf(tops[from], x.z, sum.z), fmaf(tops[from], x.w, sum.w)};
    }
    put_pair(task, row, split, column, totals[i], sum.x, sum.y);
    put_pair(task, row, split, column + 2, totals[i], sum.z, sum.w);
  }
}

template <typename L>
__device__ __forceinline__ void attend(const AttentionTask& task, const SequenceRows& rows,
                                       const Block& block, int split, std::byte* shared) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row_warp = warp % L::kRowWarps, key_warp = warp / L::kRowWarps;
  const uint32_t high = shared_address(shared), low = high + L::kQueryBytes;
  const uint32_t keys = low + L::kQueryBytes, values = keys + L::kTileBytes;
  // Rows of this step are in no page yet when the block makes them itself.
  const int64_t stored = L::kFused ? rows.first_position : block.part.end;
  ask_for_tile<L>(task, rows, block, block.part.begin, stored, 0, keys);
  ask_for_tile<L>(task, rows, block, block.part.begin, stored, 1, values);
  if constexpr (L::kFused) {
    wait_for_earlier();  // earlier steps wrote the tiles asked for, this one the projections
    make_rows<L>(task, rows, block, shared);
    start_next();  // behind the new rows: the next step's part may read them before it waits
  } else {
    load_queries<L>(task, block, shared, shared + L::kQueryBytes);
  }
  int64_t sees[2];  // the last position that each of the thread's rows sees
  for (int i = 0; i < 2; ++i) {
    const int r = block.first + row_warp * 16 + lane / 4 + 8 * i;
    sees[i] = r < block.count ? min(rows.first_position + r / task.group, block.part.end - 1) : -1;
  }
  Running<L> running;
  for (int64_t begin = block.part.begin; begin < block.part.end; begin += L::kTile) {
    wait_async<1>();
    __syncthreads();
    Scores<L> scores = {};
    score_keys<L>(high, low, keys, row_warp, key_warp, scores);
    __syncthreads();
    ask_for_tile<L>(task, rows, block, begin + L::kTile, block.part.end, 0, keys);
    const int64_t warp_begin = begin + key_warp * L::kWarpKeys;
    const int64_t last[2] = {sees[0] - warp_begin, sees[1] - warp_begin};
    weigh<L>(task, last, scores, running);
    wait_async<1>();
    __syncthreads();
    add_values<L>(values, key_warp, scores, running);
    __syncthreads();
    ask_for_tile<L>(task, rows, block, begin + L::kTile, block.part.end, 1, values);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    running.total[i] += __shfl_xor_sync(kAllLanes, running.total[i], 1);
    running.total[i] += __shfl_xor_sync(kAllLanes, running.total[i], 2);
  }
  merge_rows<L>(task, block, warp, split, reinterpret_cast<float*>(shared), running);
}

template <typename L>
__global__ void __launch_bounds__(kThreads) attention_tensor_kernel(AttentionTask task) {
  extern __shared__ uint4 attention_shared[];
  if constexpr (!L::kFused) {
    start_next();
    wait_for_earlier();
  }
  const auto split = static_cast<int>(blockIdx.z);
  const SequenceRows rows = task.sequences[blockIdx.y / task.kv_heads];
  const Block block = block_of<L>(task, rows, split);
  if (block.first < block.count && block.part.begin < block.part.end) {
    attend<L>(task, rows, block, split, reinterpret_cast<std::byte*>(attention_shared));
  } else {
    if constexpr (L::kFused) wait_for_earlier();
    if (block.first < block.count) write_nothing_seen<L>(task, block, split);
  }
}

int block_rows(const AttentionTask& task, const StepBatch& batch) {
  const int64_t rows = static_cast<int64_t>(batch.max_tokens) * task.group;
  return rows <= 16 ? 16 : rows <= 32 ? 32 : kPrefillRows;
}

template <typename L>
void launch_layout(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  const Grid grid{
      .x = blocks_for(static_cast<int64_t>(batch.max_tokens) * task.group, L::kBlockRows),
      .y = static_cast<unsigned>(batch.num_sequences) * static_cast<unsigned>(task.kv_heads),
      .z = static_cast<unsigned>(task.splits)};
  HS_LAUNCH_EARLY(queue, grid, Grid{.x = kThreads}, L::kSharedBytes, attention_tensor_kernel<L>,
                  task);
}

template <typename T, int kDim>
void launch_dim(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  const bool fused = fits_fused_rows(task, batch);
  if (block_rows(task, batch) == 16) {
    return fused ? launch_layout<Layout<T, kDim, 1, 4, true>>(queue, task, batch)
                 : launch_layout<Layout<T, kDim, 1, 4, false>>(queue, task, batch);
  }
  return fused ? launch_layout<Layout<T, kDim, 2, 2, true>>(queue, task, batch)
               : launch_layout<Layout<T, kDim, 2, 2, false>>(queue, task, batch);
}

template <typename T>
void launch_type(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  switch (task.dim) {
    case 64:
      return launch_dim<T, 64>(queue, task, batch);
    case 128:
      return launch_dim<T, 128>(queue, task, batch);
    default:
      return launch_dim<T, 256>(queue, task, batch);
  }
}

}  // namespace

bool fits_attention_tensor(const AttentionTask& task) {
  return (task.type == KvType::kBF16 || task.type == KvType::kF16) &&
         (task.dim == 64 || task.dim == 128 || task.dim == 256) && task.page_tokens % 64 == 0 &&
         task.layer_offset % 16 == 0;
}

bool fits_fused_rows(const AttentionTask& task, const StepBatch& batch) {
  return block_rows(task, batch) < kPrefillRows && task.rotary == kFusedRotary;
}

// Two blocks a multiprocessor for a memory-bound step; prefill blocks are larger, and are merged
// only when they would leave multiprocessors idle.
int tensor_splits(const AttentionTask& task, const StepBatch& batch, int num_sms) {
  const int block = block_rows(task, batch);
  const SplitShape shape = split_shape(batch);
  const int64_t tiles =
      std::max<int64_t>(blocks_for(shape.tokens * task.group, block), shape.sequences);
  const int64_t blocks = tiles * task.kv_heads;
  const int64_t places = block == kPrefillRows ? num_sms : 2 * static_cast<int64_t>(num_sms);
  const int64_t useful = (batch.max_positions + 63) / 64;
  return static_cast<int>(std::max<int64_t>(std::min(places / blocks, useful), 1));
}

void attention_tensor(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  if (block_rows(task, batch) == kPrefillRows) return attention_prefill(queue, task, batch);
  if (task.type == KvType::kBF16) {
    launch_type<__nv_bfloat16>(queue, task, batch);
  } else {
    launch_type<__half>(queue, task, batch);
  }
}

}  // namespace hotset::cuda
