// SPDX-License-Identifier: Apache-2.0
// Bodies of AttentionKernels. A tile of 16 positions is widened to fp32 once (K and V of it fit L1)
// and used by all rows. Whatever the register blocking, a score is the sum over lanes of one chain
// of fused multiply-adds along head_dim, and an output element one chain along the positions; a
// hidden position enters as weight 0, which changes nothing. That is what makes chunked and
// one-pass prefill agree.
#pragma once

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/lanes.h"

namespace hotset::cpu {
namespace {

constexpr int64_t kTile = kAttentionTile;

template <typename Load>
inline void widen(int64_t n, int64_t padded, float* out, Load load_at) {
  for (int64_t i = 0; i < n; i += Vec::kLanes) store(out + i, load_at(i));
  for (int64_t i = n; i < padded; i += Vec::kLanes) store(out + i, zero());
}

// One position's K or V row, widened to fp32 and padded with zeros.
inline void widen_row(KvType type, const std::byte* source, int64_t head_dim, int64_t padded_dim,
                      float* out) {
  const int64_t whole = head_dim / Vec::kLanes * Vec::kLanes;
  const int64_t rest = head_dim - whole;
  if (type == KvType::kF32) {
    const auto* p = reinterpret_cast<const float*>(source);
    widen(whole, padded_dim, out, [&](int64_t i) { return load(p + i); });
    if (rest > 0) store(out + whole, load_n(p + whole, rest));
    return;
  }
  const auto* p = reinterpret_cast<const uint16_t*>(source);
  uint16_t tail[Vec::kLanes] = {};
  for (int64_t i = 0; i < rest; ++i) tail[i] = p[whole + i];
  if (type == KvType::kBF16) {
    widen(whole, padded_dim, out, [&](int64_t i) { return load_bf16(p + i); });
    if (rest > 0) store(out + whole, load_bf16(tail));
  } else {
    widen(whole, padded_dim, out, [&](int64_t i) { return load_half(p + i); });
    if (rest > 0) store(out + whole, load_half(tail));
  }
}

inline void load_tile(const KvPages& kv, const RangeTask& task, int64_t begin, int64_t count,
                      float* keys, float* values) {
  for (int64_t i = 0; i < kTile; ++i, keys += task.padded_dim, values += task.padded_dim) {
    if (i >= count) {
      widen(0, task.padded_dim, keys, [](int64_t) { return zero(); });
      widen(0, task.padded_dim, values, [](int64_t) { return zero(); });
      continue;
    }
    const int64_t position = begin + i;
    const std::byte* page = kv.pages[position / kv.page_tokens];
    const int64_t row = task.kv_head * kv.page_tokens + position % kv.page_tokens;
    const std::byte* k = page + row * task.kv_row_bytes;
    widen_row(kv.type, k, kv.head_dim, task.padded_dim, keys);
    widen_row(kv.type, k + task.kv_plane_bytes, kv.head_dim, task.padded_dim, values);
  }
}

// scores[r, 4j … 4j+3] for R rows at once: R·4 chains along the dimension.
template <int R>
inline void score_rows(int64_t padded_dim, const float* q, const float* keys, float* scores) {
  for (int64_t j = 0; j < kTile; j += 4) {
    Vec acc[R][4];
    for (auto& row : acc) {
      for (Vec& a : row) a = zero();
    }
    for (int64_t d = 0; d < padded_dim; d += Vec::kLanes) {
      Vec k[4];
      for (int64_t c = 0; c < 4; ++c) k[c] = load(keys + (j + c) * padded_dim + d);
      for (int64_t r = 0; r < R; ++r) {
        const Vec x = load(q + r * padded_dim + d);
        for (int64_t c = 0; c < 4; ++c) acc[r][c] = fma(x, k[c], acc[r][c]);
      }
    }
    for (int64_t r = 0; r < R; ++r) store_sums(scores + r * kTile + j, acc[r]);
  }
}

// acc[r] += Σ_j weights[r, j] · values[j], for R rows at once.
template <int R>
inline void add_values(int64_t padded_dim, const float* weights, const float* values, float* acc) {
  constexpr int64_t kVecs = kAttentionPad / Vec::kLanes;
  for (int64_t d = 0; d < padded_dim; d += kAttentionPad) {
    Vec a[R][kVecs];
    for (int64_t r = 0; r < R; ++r) {
      for (int64_t c = 0; c < kVecs; ++c)
        a[r][c] = load(acc + r * padded_dim + d + c * Vec::kLanes);
    }
    for (int64_t j = 0; j < kTile; ++j) {
      Vec v[kVecs];
      for (int64_t c = 0; c < kVecs; ++c)
        v[c] = load(values + j * padded_dim + d + c * Vec::kLanes);
      for (int64_t r = 0; r < R; ++r) {
        const Vec w = splat(weights[r * kTile + j]);
        for (int64_t c = 0; c < kVecs; ++c) a[r][c] = fma(w, v[c], a[r][c]);
      }
    }
    for (int64_t r = 0; r < R; ++r) {
      for (int64_t c = 0; c < kVecs; ++c)
        store(acc + r * padded_dim + d + c * Vec::kLanes, a[r][c]);
    }
  }
}

inline void scale_row(int64_t n, float factor, float* x) {
  const Vec f = splat(factor);
  for (int64_t i = 0; i < n; i += Vec::kLanes) store(x + i, load(x + i) * f);
}

inline float exp_one(float x) {
  float lanes[Vec::kLanes];
  store(lanes, exp(splat(x)));
  return lanes[0];
}

// Scores of one row become weights; the row's running max, sum and values follow a new maximum.
inline void weigh_row(int64_t visible, int64_t padded_dim, float* scores, float& max_seen,
                      float& sum_seen, float* acc) {
  for (int64_t j = visible > 0 ? visible : 0; j < kTile; ++j) scores[j] = -INFINITY;
  Vec top = load(scores);
  for (int64_t j = Vec::kLanes; j < kTile; j += Vec::kLanes) top = max(top, load(scores + j));
  const float tile_max = largest(top);
  if (tile_max > max_seen) {
    if (sum_seen > 0.0f) {
      const float factor = exp_one(max_seen - tile_max);
      scale_row(padded_dim, factor, acc);
      sum_seen *= factor;
    }
    max_seen = tile_max;
  }
  Vec total = zero();
  for (int64_t j = 0; j < kTile; j += Vec::kLanes) {
    const Vec weight = exp(load(scores + j) - splat(max_seen));
    store(scores + j, weight);
    total = total + weight;
  }
  sum_seen += sum(total);
}

void attend_range_body(const RangeTask& task, const KvPages& kv, const SoftmaxRows& partial) {
  const int64_t dim = task.padded_dim;
  float* keys = task.scratch;
  float* values = keys + kTile * dim;
  float* scores = values + kTile * dim;
  for (int64_t r = 0; r < task.num_rows; ++r) {
    partial.max[r] = -INFINITY;
    partial.sum[r] = 0.0f;
  }
  for (int64_t i = 0; i < task.num_rows * dim; i += Vec::kLanes) store(partial.acc + i, zero());
  for (int64_t begin = task.begin; begin < task.end; begin += kTile) {
    const int64_t count = task.end - begin < kTile ? task.end - begin : kTile;
    // Rows whose token comes before the tile see none of it; they are the first ones.
    const int64_t hidden_tokens = begin - task.token_position;
    const int64_t first = hidden_tokens > 0 ? hidden_tokens * task.rows_per_token : 0;
    if (first >= task.num_rows) break;
    load_tile(kv, task, begin, count, keys, values);
    int64_t r = first;
    for (; r + 2 <= task.num_rows; r += 2) {
      score_rows<2>(dim, task.q + r * dim, keys, scores + r * kTile);
    }
    if (r < task.num_rows) score_rows<1>(dim, task.q + r * dim, keys, scores + r * kTile);
    for (r = first; r < task.num_rows; ++r) {
      const int64_t visible = task.token_position + r / task.rows_per_token + 1 - begin;
      weigh_row(visible < count ? visible : count, dim, scores + r * kTile, partial.max[r],
                partial.sum[r], partial.acc + r * dim);
    }
    for (r = first; r + 2 <= task.num_rows; r += 2) {
      add_values<2>(dim, scores + r * kTile, values, partial.acc + r * dim);
    }
    if (r < task.num_rows) add_values<1>(dim, scores + r * kTile, values, partial.acc + r * dim);
  }
}

void merge_body(int64_t num_rows, int64_t padded_dim, const SoftmaxRows& partial,
                const SoftmaxRows& total) {
  for (int64_t r = 0; r < num_rows; ++r) {
    if (partial.sum[r] == 0.0f) continue;
    const float top = partial.max[r] > total.max[r] ? partial.max[r] : total.max[r];
    const float mine = total.sum[r] == 0.0f ? 0.0f : exp_one(total.max[r] - top);
    const float theirs = exp_one(partial.max[r] - top);
    const Vec a = splat(mine), b = splat(theirs);
    float* acc = total.acc + r * padded_dim;
    const float* other = partial.acc + r * padded_dim;
    for (int64_t i = 0; i < padded_dim; i += Vec::kLanes) {
      store(acc + i, fma(load(other + i), b, load(acc + i) * a));
    }
    total.sum[r] = total.sum[r] * mine + partial.sum[r] * theirs;
    total.max[r] = top;
  }
}

void finish_body(int64_t head_dim, float sum_seen, const float* acc, float* out) {
  const Vec inverse = splat(1.0f / sum_seen);
  for_lanes(head_dim,
            [&](int64_t i, int64_t n) { store_some(out + i, load_some(acc + i, n) * inverse, n); });
}

constexpr AttentionKernels kAttentionKernels = {
    .attend_range = attend_range_body,
    .merge = merge_body,
    .finish = finish_body,
};

}  // namespace
}  // namespace hotset::cpu
