// SPDX-License-Identifier: Apache-2.0
// Which work item is whose: (head, slice of columns) in the recurrent form, heads in the chunked
// one.
#include "kernels/delta_rule.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/delta_rule_kernels.h"
#include "kernels/cpu/parallel.h"

namespace hotset {
namespace cpu {

const DeltaRuleKernels& delta_rule_kernels(Isa isa) {
  return table_for(isa, delta_rule_kernels_scalar(), delta_rule_kernels_avx2(),
                   delta_rule_kernels_avx512());
}

namespace {

struct DeltaCall {
  const DeltaRuleParams& params;
  const float* mixed;
  const float* beta;
  const float* g;
  float* state;
  float* out;

  [[nodiscard]] DeltaHead head(int64_t h, int64_t first, int64_t num_tokens, float* scratch) const {
    const DeltaNetShape& shape = params.shape;
    const int64_t heads = shape.num_value_heads;
    const int64_t key_head = h / (heads / shape.num_key_heads);
    const float* row = mixed + first * shape.channels();
    return {
        .num_tokens = num_tokens,
        .dk = shape.key_head_dim,
        .dv = shape.value_head_dim,
        .in_stride = shape.channels(),
        .gate_stride = heads,
        .out_stride = shape.value_dim(),
        .q = row + key_head * shape.key_head_dim,
        .k = row + shape.key_dim() + key_head * shape.key_head_dim,
        .v = row + 2 * shape.key_dim() + h * shape.value_head_dim,
        .beta = beta + first * heads + h,
        .g = g + first * heads + h,
        .state = state + h * shape.key_head_dim * shape.value_head_dim,
        .out = out + first * shape.value_dim() + h * shape.value_head_dim,
        .scratch = scratch,
    };
  }
};

int64_t recurrent_slice_floats(const DeltaRuleParams& params) {
  return params.shape.key_head_dim * kDeltaSlice;
}

void run_recurrent(Queue& queue, const DeltaCall& call, float* workspace) {
  const DeltaRuleParams& params = call.params;
  const DeltaRuleKernels& kernels = delta_rule_kernels(queue.isa);
  const int64_t heads = params.shape.num_value_heads, dv = params.shape.value_head_dim;
  const int64_t slices = (dv + kDeltaSlice - 1) / kDeltaSlice;
  float* decays = workspace;  // [heads, num_tokens]
  float* scratch = workspace + heads * params.num_tokens;
  for_shares(queue, heads, 8 * params.num_tokens, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      for (int64_t t = 0; t < params.num_tokens; ++t) {
        decays[h * params.num_tokens + t] = std::exp(call.g[t * heads + h]);
      }
    }
  });
  for_items(queue, heads * slices, [&](int64_t item, int worker) {
    const int64_t h = item / slices, begin = item % slices * kDeltaSlice;
    const DeltaHead head =
        call.head(h, 0, params.num_tokens, scratch + worker * recurrent_slice_floats(params));
    kernels.recurrent(head, begin, std::min(kDeltaSlice, dv - begin),
                      decays + h * params.num_tokens);
  });
}

void run_chunked(Queue& queue, const DeltaCall& call, float* workspace) {
  const DeltaRuleParams& params = call.params;
  const DeltaRuleKernels& kernels = delta_rule_kernels(queue.isa);
  const int64_t per_worker = delta_chunk_scratch_floats(params.chunk, params.shape.key_head_dim,
                                                        params.shape.value_head_dim);
  for_items(queue, params.shape.num_value_heads, [&](int64_t h, int worker) {
    for (int64_t first = 0; first < params.num_tokens; first += params.chunk) {
      const int64_t count = std::min(params.chunk, params.num_tokens - first);
      kernels.chunk(call.head(h, first, count, workspace + worker * per_worker));
    }
  });
}

}  // namespace
}  // namespace cpu

int64_t delta_rule_workspace_floats(const cpu::Queue& queue, const DeltaRuleParams& params) {
  const DeltaNetShape& shape = params.shape;
  const int64_t threads = queue.pool.num_threads();
  const int64_t recurrent =
      shape.num_value_heads * params.num_tokens + threads * cpu::recurrent_slice_floats(params);
  const int64_t chunked = threads * cpu::delta_chunk_scratch_floats(
                                        params.chunk, shape.key_head_dim, shape.value_head_dim);
  return std::max(recurrent, chunked);
}

void delta_rule(cpu::Queue& queue, const DeltaRuleParams& params, const float* mixed,
                const float* beta, const float* g, float* state, float* out, float* workspace) {
  HS_CHECK(params.chunk >= 1 && params.chunk <= 256, "delta rule in chunks of {}", params.chunk);
  HS_CHECK(params.shape.num_key_heads > 0 &&
               params.shape.num_value_heads % params.shape.num_key_heads == 0,
           "delta rule of {} key heads, {} value heads", params.shape.num_key_heads,
           params.shape.num_value_heads);
  if (params.num_tokens <= 0) return;
  const cpu::DeltaCall call{params, mixed, beta, g, state, out};
  // On CPUs the recurrent form is never slower (bench/ops_bench.cc): both do about 4·dk·dv
  // multiply-adds a token, and its state stays in L1.
  if (params.method == DeltaRuleMethod::kChunked) {
    cpu::run_chunked(queue, call, workspace);
  } else {
    cpu::run_recurrent(queue, call, workspace);
  }
}

}  // namespace hotset
