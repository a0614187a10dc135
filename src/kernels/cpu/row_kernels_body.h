// SPDX-License-Identifier: Apache-2.0
// Bodies of RowKernels, written against lanes.h; included by one file per instruction set. Each row
// (or element) is computed the same way whatever surrounds it.
#pragma once

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/row_kernels.h"

namespace hotset::cpu {
namespace {

inline float sum_of_squares(int64_t n, const float* x) {
  constexpr int64_t kStep = 4 * Vec::kLanes;
  Vec acc[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    for (int64_t j = 0; j < 4; ++j) {
      const Vec v = load(x + i + j * Vec::kLanes);
      acc[j] = fma(v, v, acc[j]);
    }
  }
  for_lanes(n - i, [&](int64_t at, int64_t lanes) {
    const Vec v = load_some(x + i + at, lanes);
    acc[0] = fma(v, v, acc[0]);
  });
  return sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

inline float inverse_rms(int64_t n, float eps, const float* x) {
  return 1.0f / __builtin_sqrtf(sum_of_squares(n, x) / static_cast<float>(n) + eps);
}

void rms_norm_body(int64_t rows, int64_t cols, float eps, float bias, const float* x,
                   const float* weight, float* out) {
  const Vec one = splat(bias);
  for (int64_t row = 0; row < rows; ++row, x += cols, out += cols) {
    const Vec inverse = splat(inverse_rms(cols, eps, x));
    for_lanes(cols, [&](int64_t i, int64_t n) {
      const Vec scaled = load_some(x + i, n) * inverse;
      store_some(out + i, scaled * (one + load_some(weight + i, n)), n);
    });
  }
}

void gated_rms_norm_body(int64_t rows, int64_t cols, float eps, const float* x, const float* z,
                         const float* weight, float* out) {
  for (int64_t row = 0; row < rows; ++row, x += cols, z += cols, out += cols) {
    const Vec inverse = splat(inverse_rms(cols, eps, x));
    for_lanes(cols, [&](int64_t i, int64_t n) {
      const Vec normed = load_some(x + i, n) * inverse * load_some(weight + i, n);
      store_some(out + i, normed * silu(load_some(z + i, n)), n);
    });
  }
}

void add_body(int64_t n, const float* x, float* y) {
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    store_some(y + i, load_some(y + i, lanes) + load_some(x + i, lanes), lanes);
  });
}

void swiglu_body(int64_t n, const float* gate, const float* up, float* out) {
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    store_some(out + i, silu(load_some(gate + i, lanes)) * load_some(up + i, lanes), lanes);
  });
}

void sigmoid_gate_body(int64_t n, const float* gate, float* y) {
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    store_some(y + i, load_some(y + i, lanes) * sigmoid(load_some(gate + i, lanes)), lanes);
  });
}

void axpy_body(int64_t n, float a, const float* x, float* y) {
  const Vec factor = splat(a);
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    store_some(y + i, fma(factor, load_some(x + i, lanes), load_some(y + i, lanes)), lanes);
  });
}

void rope_body(int64_t heads, int64_t head_dim, int64_t rotary_dims, const float* cos_sin,
               float* x) {
  const int64_t half = rotary_dims / 2;
  for (int64_t head = 0; head < heads; ++head, x += head_dim) {
    for_lanes(half, [&](int64_t i, int64_t n) {
      const Vec a = load_some(x + i, n), b = load_some(x + half + i, n);
      const Vec c = load_some(cos_sin + i, n), s = load_some(cos_sin + half + i, n);
      store_some(x + i, a * c - b * s, n);
      store_some(x + half + i, b * c + a * s, n);
    });
  }
}

void l2_normalize_body(int64_t n, float scale, float* x) {
  const Vec factor = splat(scale / __builtin_sqrtf(sum_of_squares(n, x) + 1e-6f));
  for_lanes(n, [&](int64_t i, int64_t lanes) {
    store_some(x + i, load_some(x + i, lanes) * factor, lanes);
  });
}

// The history is a ring of kernel−1 rows: the input of token t lies in row t mod (kernel−1), so the
// state's rows, oldest first, are the ring of tokens −(kernel−1) … −1.
void conv1d_body(int64_t tokens, int64_t channels, int64_t begin, int64_t end, int64_t kernel,
                 const float* x, const float* weight, float* state, float* out) {
  constexpr int64_t kMaxTaps = 8;
  const int64_t past = kernel - 1;
  alignas(64) float ring[(kMaxTaps - 1) * kConvSlice];
  for (int64_t r = 0; r < past; ++r) {
    for_lanes(end - begin, [&](int64_t i, int64_t n) {
      store_some(ring + r * kConvSlice + i, load_some(state + r * channels + begin + i, n), n);
    });
  }
  for (int64_t t = 0; t < tokens; ++t) {
    float* rows[kMaxTaps - 1];
    for (int64_t j = 0; j < past; ++j) rows[j] = ring + (t + j) % past * kConvSlice;
    for_lanes(end - begin, [&](int64_t i, int64_t n) {
      const float* taps = weight + begin + i;
      const Vec current = load_some(x + t * channels + begin + i, n);
      Vec acc = zero();
      for (int64_t j = 0; j < past; ++j) {
        acc = fma(load_some(taps + j * channels, n), load_some(rows[j] + i, n), acc);
      }
      acc = fma(load_some(taps + past * channels, n), current, acc);
      store_some(rows[0] + i, current, n);
      store_some(out + t * channels + begin + i, silu(acc), n);
    });
  }
  for (int64_t r = 0; r < past; ++r) {
    for_lanes(end - begin, [&](int64_t i, int64_t n) {
      const Vec kept = load_some(ring + (tokens + r) % past * kConvSlice + i, n);
      store_some(state + r * channels + begin + i, kept, n);
    });
  }
}

float softmax_sum_body(int64_t n, float max_value, const float* x) {
  Vec total = zero();
  const Vec top = splat(max_value);
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) total = total + exp(load(x + i) - top);
  float tail[Vec::kLanes] = {};
  if (i < n) {
    store(tail, exp(load_n(x + i, n - i) - top));
    total = total + load_n(tail, n - i);
  }
  return sum(total);
}

constexpr RowKernels kRowKernels = {
    .rms_norm = rms_norm_body,
    .gated_rms_norm = gated_rms_norm_body,
    .add = add_body,
    .swiglu = swiglu_body,
    .sigmoid_gate = sigmoid_gate_body,
    .axpy = axpy_body,
    .rope = rope_body,
    .l2_normalize = l2_normalize_body,
    .conv1d = conv1d_body,
    .softmax_sum = softmax_sum_body,
};

}  // namespace
}  // namespace hotset::cpu
