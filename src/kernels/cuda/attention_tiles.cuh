// SPDX-License-Identifier: Apache-2.0
// What the blocks of attention_tensor and attention_prefill have in common: which rows and
// positions a block takes, how tiles of K and V get to shared memory, where results go. Then what a
// block of attention_tensor holds there: its rows' queries in two halves, a tile of K and one of V.
//
// When the rows of a sequence fit one block (decode), the blocks make them themselves instead of
// waiting for attention_rows. A warp takes a head; lane l holds columns l, l + 32, …, so that with
// 64 rotary dimensions both ends of a pair are in one lane.
#pragma once

#include "kernels/cuda/gated_attention_parts.cuh"
#include "kernels/cuda/mma.cuh"

namespace hotset::cuda {

inline constexpr int kAttentionThreads = 128;

// Fused: the block makes queries, keys and values of its rows itself.
template <typename T, int kDimension, int kRows, int kKeys, bool kIsFused>
struct Layout {
  using Value = T;
  static constexpr bool kFused = kIsFused;
  static constexpr int kThreads = kAttentionThreads;
  static constexpr int kDim = kDimension;
  static constexpr int kRowWarps = kRows;
  static constexpr int kKeyWarps = kKeys;
  static constexpr int kBlockRows = 16 * kRowWarps;
  static constexpr int kTile = 64;
  static constexpr int kWarpKeys = kTile / kKeyWarps;
  static constexpr int kChunks = kDim / 8;  // of 16 bytes, in a row of 16-bit values
  static constexpr int kQueryBytes = kBlockRows * kDim * 2;
  static constexpr int kTileBytes = kTile * kDim * 2;
  static constexpr int kSharedBytes = 2 * kQueryBytes + 2 * kTileBytes;
};

// Chunks of 16 bytes lie permuted in their row, so that eight rows of a column hit all banks.
template <typename L>
__device__ __forceinline__ uint32_t chunk_offset(int row, int chunk) {
  return static_cast<uint32_t>((row * L::kChunks + (chunk ^ (row & 7))) * 16);
}

// The block's work.
struct Block {
  int64_t first_row;  // in the arrays' (token · heads + head) of this sequence's row 0, KV head 0
  int first;          // of this tile's rows, counted over (token, head of the group)
  int count;          // rows of the sequence in all
  int kv_head;
  Split part;
};

// Where row i of the tile lies in `out`, or −1.
__device__ __forceinline__ int64_t global_row(const AttentionTask& task, const Block& block,
                                              int i) {
  const int r = block.first + i;
  if (r >= block.count) return -1;
  return block.first_row + static_cast<int64_t>(r / task.group) * task.heads +
         block.kv_head * task.group + r % task.group;
}

// The work of block (x, y, z): a tile of rows, the last ones first, since they see most; KV head
// and sequence; split. Without rows when first >= count.
template <typename L>
__device__ __forceinline__ Block block_of(const AttentionTask& task, const SequenceRows& rows,
                                          int split) {
  Block block;
  block.first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * L::kBlockRows;
  block.count = rows.num_tokens * task.group;
  block.first_row = static_cast<int64_t>(rows.token_begin) * task.heads;
  block.kv_head = static_cast<int>(blockIdx.y) % task.kv_heads;
  const int last = min(block.first + L::kBlockRows, block.count) - 1;
  block.part = split_of(rows.first_position + last / task.group + 1, L::kTile, split, task.splits);
  return block;
}

// Of a block whose split has no positions.
template <typename L>
__device__ __forceinline__ void write_nothing_seen(const AttentionTask& task, const Block& block,
                                                   int split) {
  if (threadIdx.x >= L::kBlockRows) return;
  const int64_t row = global_row(task, block, static_cast<int>(threadIdx.x));
  if (row >= 0) task.weights[row * task.splits + split] = {-INFINITY, 0.0f};
}

// Two neighbouring elements of a finished row: to `out` behind the gate, or to the partial results.
__device__ __forceinline__ void put_pair(const AttentionTask& task, int64_t row, int split,
                                         int column, float total, float a, float b) {
  if (task.splits == 1) {
    *reinterpret_cast<float2*>(task.out + row * task.dim + column) = make_float2(
        a / total * gate_of(task, row, column), b / total * gate_of(task, row, column + 1));
  } else {
    *reinterpret_cast<float2*>(task.sums + (row * task.splits + split) * task.dim + column) =
        make_float2(a, b);
  }
}

template <typename L>
__device__ __forceinline__ void load_queries(const AttentionTask& task, const Block& block,
                                             std::byte* high, std::byte* low) {
  using Value = typename L::Value;
  for (int at = static_cast<int>(threadIdx.x); at < L::kBlockRows * L::kChunks; at += L::kThreads) {
    const int i = at / L::kChunks, chunk = at % L::kChunks;
    const int64_t row = global_row(task, block, i);
    Halves<Value> halves[4] = {};
    if (row >= 0) {
      const auto* q = reinterpret_cast<const float4*>(task.out + row * L::kDim + chunk * 8);
      const float4 a = q[0], b = q[1];
      halves[0] = split_pair<Value>(a.x, a.y);
      halves[1] = split_pair<Value>(a.z, a.w);
      halves[2] = split_pair<Value>(b.x, b.y);
      halves[3] = split_pair<Value>(b.z, b.w);
    }
    const uint32_t to = chunk_offset<L>(i, chunk);
    *reinterpret_cast<uint4*>(high + to) =
        make_uint4(halves[0].high, halves[1].high, halves[2].high, halves[3].high);
    *reinterpret_cast<uint4*>(low + to) =
        make_uint4(halves[0].low, halves[1].low, halves[2].low, halves[3].low);
  }
}

// Asks for the tile of K (plane 0) or V (plane 1) at `begin`. Positions from `stored` on are left
// alone, those from the part's end on become 0.
template <typename L>
__device__ __forceinline__ void ask_for_tile(const AttentionTask& task, const SequenceRows& rows,
                                             const Block& block, int64_t begin, int64_t stored,
                                             int plane, uint32_t to) {
  if (begin < block.part.end) {
    const std::byte* from =
        key_address(task, rows, begin, block.kv_head) + plane * task.plane_bytes;
    const auto count =
        static_cast<int>(min(block.part.end - begin, static_cast<int64_t>(L::kTile)));
    const auto known = static_cast<int>(
        max(min(stored - begin, static_cast<int64_t>(count)), static_cast<int64_t>(0)));
#pragma unroll 4
    for (int at = static_cast<int>(threadIdx.x); at < L::kTile * L::kChunks; at += L::kThreads) {
      const int row = at / L::kChunks, chunk = at % L::kChunks;
      const bool inside = row < known;
      if (!inside && row < count) continue;
      copy_async(to + chunk_offset<L>(row, chunk), from + (inside ? at : 0) * 16, inside);
    }
  }
  commit_async();
}

inline constexpr int kFusedRotary = 2 * kWarp;

template <int kDim>
struct HeadLanes {
  static constexpr int kEach = kDim / kWarp;
  float x[kEach];

  __device__ __forceinline__ void load(const float* from, int lane) {
#pragma unroll
    for (int c = 0; c < kEach; ++c) x[c] = from[lane + kWarp * c];
  }
  // rope(rms_norm(x)). What it reads is asked for ahead of the sum.
  __device__ __forceinline__ void norm_and_turn(const AttentionTask& task, const float* norm,
                                                const float* cos_sin, int lane) {
    float weight[kEach], total = 0.0f;
#pragma unroll
    for (int c = 0; c < kEach; ++c) weight[c] = norm[lane + kWarp * c];
    const float cosine = cos_sin[lane], sine = cos_sin[kWarp + lane];
#pragma unroll
    for (int c = 0; c < kEach; ++c) total = fmaf(x[c], x[c], total);
    const float inverse = 1.0f / sqrtf(warp_sum(total) / static_cast<float>(kDim) + task.eps);
#pragma unroll
    for (int c = 0; c < kEach; ++c) x[c] = x[c] * inverse * (1.0f + weight[c]);
    const float a = x[0], b = x[1];
    x[0] = a * cosine - b * sine;
    x[1] = b * cosine + a * sine;
  }
};

template <typename T>
__device__ __forceinline__ T rounded(float x);
template <>
__device__ __forceinline__ __nv_bfloat16 rounded<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half rounded<__half>(float x) {
  return __float2half_rn(x);
}

__device__ __forceinline__ float widened(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ __forceinline__ float widened(__half x) {
  return __half2float(x);
}

// One value into a tile of 16-bit rows.
template <typename L>
__device__ __forceinline__ void put_value(std::byte* tile, int row, int column,
                                          typename L::Value x) {
  *reinterpret_cast<typename L::Value*>(tile + chunk_offset<L>(row, column / 8) + column % 8 * 2) =
      x;
}

// The key and value of row t of the step: to their page, and to the tiles when they lie in the
// block's first ones.
template <typename L>
__device__ __forceinline__ void make_new_row(const AttentionTask& task, const SequenceRows& rows,
                                             const Block& block, int t, std::byte* keys) {
  using Value = typename L::Value;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t position = rows.first_position + t, at = rows.token_begin + t;
  const int64_t row = (at * task.kv_heads + block.kv_head) * L::kDim;
  HeadLanes<L::kDim> key, value;
  key.load(task.key + row, lane);
  value.load(task.value + row, lane);
  auto* k = reinterpret_cast<Value*>(key_address(task, rows, position, block.kv_head));
  auto* v = k + task.plane_bytes / static_cast<int64_t>(sizeof(Value));
  key.norm_and_turn(task, task.k_norm, task.cos_sin + at * task.rotary, lane);
  const int64_t in_tile = position - block.part.begin;
#pragma unroll
  for (int c = 0; c < HeadLanes<L::kDim>::kEach; ++c) {
    const int column = lane + kWarp * c;
    const Value key_value = rounded<Value>(key.x[c]), value_value = rounded<Value>(value.x[c]);
    k[column] = key_value;
    v[column] = value_value;
    if (in_tile < L::kTile) {
      put_value<L>(keys, static_cast<int>(in_tile), column, key_value);
      put_value<L>(keys + L::kTileBytes, static_cast<int>(in_tile), column, value_value);
    }
  }
}

// Queries of the block's rows, a warp every fourth one, and the step's keys and values at positions
// of the block's part. Later tiles read them from their page again, behind a fence and a barrier.
template <typename L>
__device__ __forceinline__ void make_rows(const AttentionTask& task, const SequenceRows& rows,
                                          const Block& block, std::byte* shared) {
  using Value = typename L::Value;
  constexpr int kWarps = kAttentionThreads / kWarp, kEach = L::kBlockRows / kWarps;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  HeadLanes<L::kDim> heads[kEach] = {};
#pragma unroll
  for (int n = 0; n < kEach; ++n) {
    const int64_t row = global_row(task, block, warp + kWarps * n);
    if (row >= 0) heads[n].load(task.query_gate + row * 2 * L::kDim, lane);
  }
  for (int t = warp; t < rows.num_tokens; t += kWarps) {
    const int64_t position = rows.first_position + t;
    if (position < block.part.begin || position >= block.part.end) continue;
    make_new_row<L>(task, rows, block, t, shared + 2 * L::kQueryBytes);
    __threadfence();
  }
#pragma unroll
  for (int n = 0; n < kEach; ++n) {
    const int i = warp + kWarps * n;
    const int64_t row = global_row(task, block, i);
    if (row >= 0) {
      heads[n].norm_and_turn(task, task.q_norm,
                             task.cos_sin + static_cast<int>(row) / task.heads * task.rotary, lane);
    }
#pragma unroll
    for (int c = 0; c < HeadLanes<L::kDim>::kEach; ++c) {
      const Value rough = rounded<Value>(heads[n].x[c]);
      const Value fine = rounded<Value>(heads[n].x[c] - widened(rough));
      put_value<L>(shared, i, lane + kWarp * c, rough);
      put_value<L>(shared + L::kQueryBytes, i, lane + kWarp * c, fine);
    }
  }
}

}  // namespace hotset::cuda
