// SPDX-License-Identifier: Apache-2.0
// The grouped projection outputs are taken apart here, token by token, with plain copies; the
// arithmetic is in row_kernels_body.h but for the gates, of which there are only Hv a token.
#include "kernels/delta_net.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"

namespace hotset {
namespace {

void check_shape(const DeltaNetShape& shape) {
  HS_CHECK(shape.num_key_heads > 0 && shape.num_value_heads % shape.num_key_heads == 0 &&
               shape.key_head_dim > 0 && shape.value_head_dim > 0,
           "delta net of {} key heads of {}, {} value heads of {}", shape.num_key_heads,
           shape.key_head_dim, shape.num_value_heads, shape.value_head_dim);
}

// exp() is 0 far above kMinLogDecay already; the limits only keep infinities out of sums of g.
constexpr float kMaxRate = 1e30f;
constexpr float kMinLogDecay = -1e4f;

float softplus(float x) {
  return x > 20.0f ? x : std::log1p(std::exp(x));
}

}  // namespace

void split_qkvz(cpu::Queue& queue, const DeltaNetShape& shape, int64_t num_tokens,
                const float* qkvz, float* mixed, float* z) {
  check_shape(shape);
  const int64_t dk = shape.key_head_dim;
  const int64_t group_values = shape.value_dim() / shape.num_key_heads;
  cpu::for_shares(queue, num_tokens, shape.qkvz_dim(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* from = qkvz + t * shape.qkvz_dim();
      float* q = mixed + t * shape.channels();
      float* k = q + shape.key_dim();
      float* v = k + shape.key_dim();
      float* gate = z + t * shape.value_dim();
      for (int64_t group = 0; group < shape.num_key_heads; ++group) {
        q = std::copy_n(from, dk, q);
        k = std::copy_n(from + dk, dk, k);
        v = std::copy_n(from + 2 * dk, group_values, v);
        gate = std::copy_n(from + 2 * dk + group_values, group_values, gate);
        from += 2 * (dk + group_values);
      }
    }
  });
}

void conv1d(cpu::Queue& queue, const Conv1dParams& params, const float* x, const float* weight,
            float* state, float* out) {
  HS_CHECK(params.kernel >= 2 && params.kernel <= 8, "conv1d with {} taps", params.kernel);
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  const int64_t slices = (params.channels + cpu::kConvSlice - 1) / cpu::kConvSlice;
  cpu::for_shares(queue, slices, 4 * params.num_tokens * cpu::kConvSlice, 1,
                  [&](int64_t first, int64_t last) {
                    for (int64_t slice = first; slice < last; ++slice) {
                      const int64_t begin = slice * cpu::kConvSlice;
                      const int64_t end = std::min(begin + cpu::kConvSlice, params.channels);
                      kernels.conv1d(params.num_tokens, params.channels, begin, end, params.kernel,
                                     x, weight, state, out);
                    }
                  });
}

void normalize_qk(cpu::Queue& queue, const DeltaNetShape& shape, int64_t num_tokens, float* mixed) {
  check_shape(shape);
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  const int64_t dk = shape.key_head_dim;
  const auto query_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(dk)));
  cpu::for_shares(queue, num_tokens, 2 * shape.key_dim(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = mixed + t * shape.channels();
      for (int64_t head = 0; head < 2 * shape.num_key_heads; ++head) {
        kernels.l2_normalize(dk, head < shape.num_key_heads ? query_scale : 1.0f, row + head * dk);
      }
    }
  });
}

void delta_gates(cpu::Queue& queue, const DeltaNetShape& shape, int64_t num_tokens, const float* ba,
                 const float* a_log, const float* dt_bias, float* beta, float* g) {
  check_shape(shape);
  const int64_t heads = shape.num_value_heads;
  const int64_t ratio = heads / shape.num_key_heads;
  constexpr int64_t kCost = 32;  // four library exponentials, in elements of for_shares
  cpu::for_shares(queue, num_tokens, heads * kCost, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const float* pair = ba + t * 2 * heads + h / ratio * 2 * ratio + h % ratio;
        beta[t * heads + h] = 1.0f / (1.0f + std::exp(-pair[0]));
        const float rate = std::min(std::exp(a_log[h]), kMaxRate);
        g[t * heads + h] = std::max(-rate * softplus(pair[ratio] + dt_bias[h]), kMinLogDecay);
      }
    }
  });
}

}  // namespace hotset
