// SPDX-License-Identifier: Apache-2.0
// The whole mixer of a few tokens in one kernel, for heads of 128 × 128.
//
// A block takes a key head of a sequence with its value heads, so that nobody else reads the conv
// state it moves on. 256 threads hold one value head's S: warp w the rows 16w … 16w+15, a lane four
// columns of each. S is asked for before anything else and written once, after the last token.
//
// The kernel starts early: S and the conv state, which only the layer's own kernels write, are read
// ahead of what this step's projections write. It has no start_next(), so that a later part of the
// same step finds both complete.
//
// With raw k and q (lengths 1/a and scale/b folded in afterwards), one pass over S gives
//   p = a·Sᵀk,  s = b·Sᵀq;   δ = β·(v − e·p);   o = e·s + (k̂·q̂)·δ;   S ← e·S + k̂ ⊗ δ
#include "kernels/cuda/delta_mixer_parts.cuh"

namespace hotset::cuda {
namespace {

constexpr int kDim = kDeltaDim;
constexpr int kHeadThreads = 256;
constexpr int kHeadWarps = kHeadThreads / kWarp;
constexpr int kLaneRows = kDim / kHeadWarps;

struct StepShared {
  float* rows;   // [tokens][q 128, k 128, v ratio · 128] after the convolution
  float* gates;  // [tokens][ratio][β, exp(g)]
};

__device__ __forceinline__ int step_row_floats(const DeltaTask& task) {
  return (2 + task.ratio) * kDim;
}

// Channel i of the block (q, k, then the value heads') in `mixed`.
__device__ __forceinline__ int step_channel(const DeltaTask& task, int key_head, int i) {
  const int key_dim = task.key_heads * kDim;
  if (i < kDim) return key_head * kDim + i;
  if (i < 2 * kDim) return key_dim + key_head * kDim + i - kDim;
  return 2 * key_dim + key_head * task.ratio * kDim + i - 2 * kDim;
}

// The block's channels through the convolution, and the gates; the conv state moves on. From here
// on earlier kernels have ended.
template <int kTaps>
__device__ __forceinline__ void convolve(const DeltaTask& task, const SequenceRows& rows,
                                         int key_head, const StepShared& shared) {
  const int width = step_row_floats(task), num_gates = rows.num_tokens * task.ratio;
  const auto thread = static_cast<int>(threadIdx.x);
  float* state = rows.state + task.conv_offset;
  const float* x = task.qkvz + static_cast<int64_t>(rows.token_begin) * task.qkvz_dim +
                   key_head * task.group_dim;
  ConvWindow<kTaps> window;
  const auto load_window = [&](int i) {
    const int c = step_channel(task, key_head, i);
    window.load_state(task, state, c);
    window.load_weights(task, c);
  };
  if (thread < width) load_window(thread);
  wait_for_earlier();
  GateInputs inputs = {};
  if (thread < num_gates) {  // at most 8 tokens · 4 heads
    inputs = gate_inputs(task, rows.token_begin + thread / task.ratio,
                         key_head * task.ratio + thread % task.ratio);
  }
  for (int i = thread; i < width; i += static_cast<int>(blockDim.x)) {
    if (i != thread) load_window(i);
    for (int t = 0; t < rows.num_tokens; ++t) {
      shared.rows[t * width + i] = window.step(x[static_cast<int64_t>(t) * task.qkvz_dim + i]);
    }
    window.store_state(task, state, step_channel(task, key_head, i));
  }
  if (thread < num_gates) {
    const Gates gates = gates_of(inputs);
    shared.gates[2 * thread] = gates.beta;
    shared.gates[2 * thread + 1] = expf(gates.log_decay);
  }
}

__device__ __forceinline__ float dot4(const float4& a, const float4& b) {
  return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, a.w * b.w)));
}
__device__ __forceinline__ void add_scaled(float4& sum, float factor, const float4& x) {
  sum.x = fmaf(factor, x.x, sum.x);
  sum.y = fmaf(factor, x.y, sum.y);
  sum.z = fmaf(factor, x.z, sum.z);
  sum.w = fmaf(factor, x.w, sum.w);
}
__device__ __forceinline__ float4 as4(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}

// p and s of the block's warps, [warp][p 128, s 128].
__device__ __forceinline__ void read_through(const float4 (&state)[kLaneRows], const float* q,
                                             const float* k, float* partial) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) % kHeadThreads / kWarp;
  float4 p = {}, s = {};
#pragma unroll
  for (int i = 0; i < kLaneRows; i += 4) {
    const float4 k4 = as4(k + warp * kLaneRows + i), q4 = as4(q + warp * kLaneRows + i);
    add_scaled(p, k4.x, state[i]);
    add_scaled(s, q4.x, state[i]);
    add_scaled(p, k4.y, state[i + 1]);
    add_scaled(s, q4.y, state[i + 1]);
    add_scaled(p, k4.z, state[i + 2]);
    add_scaled(s, q4.z, state[i + 2]);
    add_scaled(p, k4.w, state[i + 3]);
    add_scaled(s, q4.w, state[i + 3]);
  }
  *reinterpret_cast<float4*>(partial + warp * 2 * kDim + 4 * lane) = p;
  *reinterpret_cast<float4*>(partial + warp * 2 * kDim + kDim + 4 * lane) = s;
}

__device__ __forceinline__ float4 over_warps(const float* partial) {
  float4 sum = as4(partial);
#pragma unroll
  for (int w = 1; w < kHeadWarps; ++w) add_scaled(sum, 1.0f, as4(partial + w * 2 * kDim));
  return sum;
}

// One warp: δ (with k's length folded in) to shared memory for S, and the token's o, four columns a
// lane.
__device__ __forceinline__ float4 correct(const DeltaTask& task, const float* row, const float* v,
                                          const float* gates, const float* partial, float* deltas) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float4 q4 = as4(row + 4 * lane), k4 = as4(row + kDim + 4 * lane), v4 = as4(v + 4 * lane);
  const float a = 1.0f / sqrtf(warp_sum(dot4(k4, k4)) + 1e-6f);
  const float b = task.query_scale / sqrtf(warp_sum(dot4(q4, q4)) + 1e-6f);
  const float kq = warp_sum(dot4(k4, q4)) * a * b;
  const float beta = gates[0], e = gates[1];
  const float4 p = over_warps(partial + 4 * lane), s = over_warps(partial + kDim + 4 * lane);
  const float ea = e * a, eb = e * b;
  const float4 delta = {beta * fmaf(-ea, p.x, v4.x), beta * fmaf(-ea, p.y, v4.y),
                        beta * fmaf(-ea, p.z, v4.z), beta * fmaf(-ea, p.w, v4.w)};
  *reinterpret_cast<float4*>(deltas + 4 * lane) =
      make_float4(a * delta.x, a * delta.y, a * delta.z, a * delta.w);
  return {fmaf(kq, delta.x, eb * s.x), fmaf(kq, delta.y, eb * s.y), fmaf(kq, delta.z, eb * s.z),
          fmaf(kq, delta.w, eb * s.w)};
}

__device__ __forceinline__ void update(float4 (&state)[kLaneRows], float e, const float* k,
                                       const float* deltas) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) % kHeadThreads / kWarp;
  const float4 d = as4(deltas + 4 * lane);
#pragma unroll
  for (int i = 0; i < kLaneRows; ++i) {
    const float ki = k[warp * kLaneRows + i];
    float4& s = state[i];
    s = make_float4(fmaf(ki, d.x, e * s.x), fmaf(ki, d.y, e * s.y), fmaf(ki, d.z, e * s.z),
                    fmaf(ki, d.w, e * s.w));
  }
}

// One warp: the gated norm of a token's head.
__device__ __forceinline__ void write_out(const DeltaTask& task, const float4& o, const float4& z,
                                          float* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float mean = warp_sum(dot4(o, o)) / static_cast<float>(kDim);
  const float inverse = 1.0f / sqrtf(mean + task.eps);
  const float4 w = as4(task.norm + 4 * lane);
  *reinterpret_cast<float4*>(out + 4 * lane) =
      make_float4(o.x * inverse * w.x * silu(z.x), o.y * inverse * w.y * silu(z.y),
                  o.z * inverse * w.z * silu(z.z), o.w * inverse * w.w * silu(z.w));
}

// All tokens of one value head whose S is in `state`. Every thread of the block comes along for the
// barriers; those without a head only do that.
__device__ __forceinline__ void run_head(const DeltaTask& task, const SequenceRows& rows, int h,
                                         const StepShared& shared, float* partial, float* deltas,
                                         bool has_head, float4 (&state)[kLaneRows]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool leads = has_head && threadIdx.x % kHeadThreads < kWarp;
  const int width = step_row_floats(task), in_group = h % task.ratio;
  for (int t = 0; t < rows.num_tokens; ++t) {
    const float* row = shared.rows + t * width;
    const float* gates = shared.gates + 2 * (t * task.ratio + in_group);
    const int64_t at = rows.token_begin + t;
    float4 o = {}, z = {};
    if (leads) z = as4(task.qkvz + at * task.qkvz_dim + z_column(task, h) + 4 * lane);
    if (has_head) read_through(state, row, row + kDim, partial);
    __syncthreads();
    if (leads) o = correct(task, row, row + (2 + in_group) * kDim, gates, partial, deltas);
    __syncthreads();
    if (has_head) update(state, gates[1], row + kDim, deltas);
    if (leads) write_out(task, o, z, task.out + (at * task.value_heads + h) * kDim);
  }
}

// kHeads value heads at the same time, the others of the group after them.
template <int kHeads, int kTaps>
__global__ void __launch_bounds__(kHeads* kHeadThreads, kHeads == 1 ? 2 : 1)
    delta_step_kernel(DeltaTask task) {
  extern __shared__ float4 step_shared[];
  __shared__ float4 partials[kHeads][kHeadWarps * 2 * kDim / 4];
  __shared__ float4 deltas[kHeads][kDim / 4];
  const SequenceRows rows = task.sequences[blockIdx.y];
  if (rows.num_tokens <= 0) return wait_for_earlier();
  const int key_head = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int slot = static_cast<int>(threadIdx.x) / kHeadThreads;
  const int warp = static_cast<int>(threadIdx.x) % kHeadThreads / kWarp;
  auto* floats = reinterpret_cast<float*>(step_shared);
  const StepShared shared{floats, floats + rows.num_tokens * step_row_floats(task)};

  for (int first = 0; first < task.ratio; first += kHeads) {
    const bool has_head = first + slot < task.ratio;
    const int h = key_head * task.ratio + (has_head ? first + slot : 0);
    float* s = rows.state + task.delta_offset + static_cast<int64_t>(h) * kDim * kDim +
               warp * kLaneRows * kDim + 4 * lane;
    float4 state[kLaneRows];
    if (has_head) {
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i)
        state[i] = __ldcs(reinterpret_cast<float4*>(s + i * kDim));
    }
    if (first == 0) {
      convolve<kTaps>(task, rows, key_head, shared);
      __syncthreads();
    }
    run_head(task, rows, h, shared, reinterpret_cast<float*>(partials[slot]),
             reinterpret_cast<float*>(deltas[slot]), has_head, state);
    if (has_head) {
#pragma unroll
      for (int i = 0; i < kLaneRows; ++i) {
        __stcs(reinterpret_cast<float4*>(s + i * kDim), state[i]);
      }
    }
  }
}

}  // namespace

// Few blocks: both heads of a group at once, for the shortest way through. Many: one after the
// other, so that two blocks share a multiprocessor and one computes while the other loads.
void delta_step(Queue& queue, const DeltaTask& task, const StepBatch& batch) {
  const Grid grid{.x = static_cast<unsigned>(task.key_heads),
                  .y = static_cast<unsigned>(batch.num_sequences)};
  const int64_t tokens = batch.max_tokens;
  const int64_t shared_bytes =
      tokens * ((2 + task.ratio) * kDim + 2 * task.ratio) * static_cast<int64_t>(sizeof(float));
  const bool few = static_cast<int64_t>(grid.x) * grid.y <= queue.num_sms();
  with_taps(task, [&]<int kTaps>() {
    if (few && task.ratio > 1) {
      HS_LAUNCH_EARLY(queue, grid, Grid{.x = 2 * kHeadThreads}, shared_bytes,
                      (delta_step_kernel<2, kTaps>), task);
    } else {
      HS_LAUNCH_EARLY(queue, grid, Grid{.x = kHeadThreads}, shared_bytes,
                      (delta_step_kernel<1, kTaps>), task);
    }
  });
}

}  // namespace hotset::cuda
