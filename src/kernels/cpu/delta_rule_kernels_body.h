// SPDX-License-Identifier: Apache-2.0
// Bodies of DeltaRuleKernels; formulas in kernels/delta_rule.h.
//
// Recurrent: the columns of S are independent, so a slice of 32 (16 KiB at dk = 128) is taken
// through all tokens in L1. One sweep over the slice writes token t and reads what token t+1 needs
// from it:
//   s = exp(g_t)·s + k_t[i]·δ;   o += q_t[i]·s;   p' += k_{t+1}[i]·s
// which is 4 arithmetic instructions per vector, one load and one store. The first sweep comes
// straight from the state's memory and the last one goes straight back: a decode step reads and
// writes the state once.
#pragma once

#include "kernels/cpu/delta_rule_kernels.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/small_gemm.h"

namespace hotset::cpu {
namespace {

constexpr int64_t kSliceVecs = kDeltaSlice / Vec::kLanes;

struct Slice {
  Vec v[kSliceVecs];
};

inline Slice load_slice(const float* from, int64_t width) {
  Slice s;
  for (int64_t c = 0; c < kSliceVecs; ++c) {
    const int64_t left = width - c * Vec::kLanes;
    s.v[c] = left >= Vec::kLanes ? load(from + c * Vec::kLanes)
             : left > 0          ? load_n(from + c * Vec::kLanes, left)
                                 : zero();
  }
  return s;
}

inline void store_slice(float* to, const Slice& s, int64_t width) {
  for (int64_t c = 0; c < kSliceVecs; ++c) {
    const int64_t left = width - c * Vec::kLanes;
    if (left >= Vec::kLanes) {
      store(to + c * Vec::kLanes, s.v[c]);
    } else if (left > 0) {
      store_n(to + c * Vec::kLanes, s.v[c], left);
    }
  }
}

inline Slice zero_slice() {
  Slice s;
  for (Vec& v : s.v) v = zero();
  return s;
}

// δ = β·(v − exp(g)·p)
inline Slice correction(const Slice& v, const Slice& p, float decay, float beta) {
  Slice d;
  for (int64_t c = 0; c < kSliceVecs; ++c) {
    d.v[c] = splat(beta) * (v.v[c] - splat(decay) * p.v[c]);
  }
  return d;
}

// The sweep of one token; `next` is the following token's k. Returns o, and that token's p in
// `read`.
inline Slice sweep(int64_t dk, float* local, float decay, const Slice& delta, const float* k,
                   const float* q, const float* next, Slice& read) {
  Slice o = zero_slice(), p = zero_slice();
  const Vec e = splat(decay);
  for (int64_t i = 0; i < dk; ++i) {
    float* row = local + i * kDeltaSlice;
    const Vec ki = splat(k[i]), qi = splat(q[i]), ni = splat(next[i]);
    for (int64_t c = 0; c < kSliceVecs; ++c) {
      const Vec s = fma(ki, delta.v[c], load(row + c * Vec::kLanes) * e);
      o.v[c] = fma(qi, s, o.v[c]);
      p.v[c] = fma(ni, s, p.v[c]);
      store(row + c * Vec::kLanes, s);
    }
  }
  read = p;
  return o;
}

inline Slice last_sweep(const DeltaHead& head, int64_t begin, int64_t width, float decay,
                        const Slice& delta, const float* k, const float* q) {
  Slice o = zero_slice();
  const Vec e = splat(decay);
  for (int64_t i = 0; i < head.dk; ++i) {
    const float* row = head.scratch + i * kDeltaSlice;
    const Vec ki = splat(k[i]), qi = splat(q[i]);
    Slice s;
    for (int64_t c = 0; c < kSliceVecs; ++c) {
      s.v[c] = fma(ki, delta.v[c], load(row + c * Vec::kLanes) * e);
      o.v[c] = fma(qi, s.v[c], o.v[c]);
    }
    store_slice(head.state + i * head.dv + begin, s, width);
  }
  return o;
}

void recurrent_body(const DeltaHead& head, int64_t begin, int64_t width, const float* decay) {
  Slice p = zero_slice();
  for (int64_t i = 0; i < head.dk; ++i) {
    const Slice s = load_slice(head.state + i * head.dv + begin, width);
    const Vec ki = splat(head.k[i]);
    for (int64_t c = 0; c < kSliceVecs; ++c) p.v[c] = fma(ki, s.v[c], p.v[c]);
    store_slice(head.scratch + i * kDeltaSlice, s, kDeltaSlice);
  }
  const float* k = head.k;
  const float* q = head.q;
  for (int64_t t = 0; t < head.num_tokens; ++t, k += head.in_stride, q += head.in_stride) {
    const Slice v = load_slice(head.v + t * head.in_stride + begin, width);
    const Slice delta = correction(v, p, decay[t], head.beta[t * head.gate_stride]);
    const Slice o = t + 1 < head.num_tokens
                        ? sweep(head.dk, head.scratch, decay[t], delta, k, q, k + head.in_stride, p)
                        : last_sweep(head, begin, width, decay[t], delta, k, q);
    store_slice(head.out + t * head.out_stride + begin, o, width);
  }
}

// The scratch of one chunk, cut as delta_chunk_scratch_floats counts it.
struct ChunkBuffers {
  int64_t c;   // padded chunk: row length of the [C, C] matrices and of kᵀ
  int64_t kw;  // row length of the decayed k
  int64_t vw;  // row length of X
  float* kt;
  float* a;           // −A: β_i·(k_i·k_j)·D_ij, lower triangle
  float* w;           // (q_i·k_j)·D_ij, lower triangle with the diagonal
  float* decayed;     // exp(G_last − G_i)·k_i
  float* x;           // V'
  float* from_start;  // exp(G_i)
  float* row;         // scratch line
};

inline ChunkBuffers cut_scratch(const DeltaHead& head) {
  ChunkBuffers b;
  b.c = (head.num_tokens + 15) / 16 * 16;
  b.kw = (head.dk + 15) / 16 * 16;
  b.vw = (head.dv + 15) / 16 * 16;
  b.kt = head.scratch;
  b.a = b.kt + head.dk * b.c;
  b.w = b.a + b.c * b.c;
  b.decayed = b.w + b.c * b.c;
  b.x = b.decayed + b.c * b.kw;
  b.from_start = b.x + b.c * b.vw;
  b.row = b.from_start + b.c;
  return b;
}

constexpr int64_t kMaxChunk = 256;

// k·kᵀ and q·kᵀ by blocks of rows up to their diagonal, then times D and β.
inline void decay_matrices(const DeltaHead& head, const ChunkBuffers& b, const double* sums) {
  const int64_t n = head.num_tokens;
  for (int64_t i = 0; i < head.dk; ++i) {
    for (int64_t t = 0; t < n; ++t) b.kt[i * b.c + t] = head.k[t * head.in_stride + i];
    for (int64_t t = n; t < b.c; ++t) b.kt[i * b.c + t] = 0.0f;
  }
  for (int64_t i = 0; i < 2 * b.c * b.c; ++i) b.a[i] = 0.0f;
  for (int64_t begin = 0; begin < n; begin += 16) {
    const int64_t rows = n - begin < 16 ? n - begin : 16;
    gemm_add(rows, begin + 16, head.dk, {head.k + begin * head.in_stride, head.in_stride, 1}, b.kt,
             b.c, b.a + begin * b.c, b.c);
    gemm_add(rows, begin + 16, head.dk, {head.q + begin * head.in_stride, head.in_stride, 1}, b.kt,
             b.c, b.w + begin * b.c, b.c);
  }
  for (int64_t i = 0; i < n; ++i) {
    // The difference is taken in double: G may be in the thousands. Hidden pairs get −∞ before exp.
    for (int64_t j = 0; j < b.c; ++j) {
      b.row[j] = j <= i ? static_cast<float>(sums[i] - sums[j]) : -INFINITY;
    }
    const Vec beta = splat(head.beta[i * head.gate_stride]);
    for (int64_t j = 0; j < b.c; j += Vec::kLanes) {
      const Vec d = exp(load(b.row + j));
      store(b.a + i * b.c + j, load(b.a + i * b.c + j) * d * beta);
      store(b.w + i * b.c + j, load(b.w + i * b.c + j) * d);
    }
  }
}

// X ← (I − A)⁻¹ X, rows from the top: whole blocks above by matrix product, then inside the block.
inline void solve(int64_t n, const ChunkBuffers& b) {
  for (int64_t i = 0; i < n * b.c; ++i) b.a[i] = -b.a[i];
  constexpr int64_t kBlock = 8;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t rows = n - begin < kBlock ? n - begin : kBlock;
    gemm_add(rows, b.vw, begin, {b.a + begin * b.c, b.c, 1}, b.x, b.vw, b.x + begin * b.vw, b.vw);
    for (int64_t r = begin + 1; r < begin + rows; ++r) {
      gemm_add(1, b.vw, r - begin, {b.a + r * b.c + begin, b.c, 1}, b.x + begin * b.vw, b.vw,
               b.x + r * b.vw, b.vw);
    }
  }
}

// X ← diag(β)·(v − diag(exp G)·(k·S));  out ← diag(exp G)·(q·S)
inline void read_state(const DeltaHead& head, const ChunkBuffers& b) {
  const int64_t n = head.num_tokens;
  for (int64_t i = 0; i < n * b.vw; ++i) b.x[i] = 0.0f;
  gemm_add(n, head.dv, head.dk, {head.k, head.in_stride, 1}, head.state, head.dv, b.x, b.vw);
  for (int64_t t = 0; t < n; ++t) {
    float* out = head.out + t * head.out_stride;
    for (int64_t j = 0; j < head.dv; ++j) out[j] = 0.0f;
  }
  gemm_add(n, head.dv, head.dk, {head.q, head.in_stride, 1}, head.state, head.dv, head.out,
           head.out_stride);
  for (int64_t t = 0; t < n; ++t) {
    const Vec decay = splat(b.from_start[t]);
    const Vec beta = splat(head.beta[t * head.gate_stride]);
    const float* v = head.v + t * head.in_stride;
    float* x = b.x + t * b.vw;
    float* out = head.out + t * head.out_stride;
    for_lanes(head.dv, [&](int64_t j, int64_t lanes) {
      store_some(x + j, beta * (load_some(v + j, lanes) - decay * load_some(x + j, lanes)), lanes);
      store_some(out + j, decay * load_some(out + j, lanes), lanes);
    });
  }
}

inline void write_state(const DeltaHead& head, const ChunkBuffers& b, const double* sums) {
  const int64_t n = head.num_tokens;
  for (int64_t t = 0; t < n; ++t) b.row[t] = static_cast<float>(sums[n - 1] - sums[t]);
  for (int64_t t = n; t < b.c; ++t) b.row[t] = -INFINITY;
  for (int64_t t = 0; t < b.c; t += Vec::kLanes) store(b.row + t, exp(load(b.row + t)));
  for (int64_t t = 0; t < n; ++t) {
    const Vec factor = splat(b.row[t]);
    const float* k = head.k + t * head.in_stride;
    for_lanes(head.dk, [&](int64_t i, int64_t lanes) {
      store_some(b.decayed + t * b.kw + i, factor * load_some(k + i, lanes), lanes);
    });
  }
  const Vec decay = splat(b.from_start[n - 1]);
  for_lanes(head.dk * head.dv, [&](int64_t i, int64_t lanes) {
    store_some(head.state + i, decay * load_some(head.state + i, lanes), lanes);
  });
  gemm_add(head.dk, head.dv, n, {b.decayed, 1, b.kw}, b.x, b.vw, head.state, head.dv);
}

void chunk_body(const DeltaHead& head) {
  const ChunkBuffers b = cut_scratch(head);
  const int64_t n = head.num_tokens;
  double sums[kMaxChunk];
  double total = 0.0;
  for (int64_t t = 0; t < n; ++t) {
    total += head.g[t * head.gate_stride];
    sums[t] = total;
    b.from_start[t] = static_cast<float>(total);
  }
  for (int64_t t = n; t < b.c; ++t) b.from_start[t] = 0.0f;
  for (int64_t t = 0; t < b.c; t += Vec::kLanes) {
    store(b.from_start + t, exp(load(b.from_start + t)));
  }
  decay_matrices(head, b, sums);
  read_state(head, b);
  solve(n, b);
  for (int64_t begin = 0; begin < n; begin += 16) {
    const int64_t rows = n - begin < 16 ? n - begin : 16;
    gemm_add(rows, head.dv, begin + rows, {b.w + begin * b.c, b.c, 1}, b.x, b.vw,
             head.out + begin * head.out_stride, head.out_stride);
  }
  write_state(head, b, sums);
}

constexpr DeltaRuleKernels kDeltaRuleKernels = {
    .recurrent = recurrent_body,
    .chunk = chunk_body,
};

}  // namespace
}  // namespace hotset::cpu
