// SPDX-License-Identifier: Apache-2.0
// The forward pass of Qwen3-Next: the only place where the order of operations is written.
//
//   x = embed(ids)
//   for each layer:  x ← x + mixer(norm(x));   x ← x + mlp(norm(x))
//   logits = lm_head · norm(x)
//
// The mixer is Gated DeltaNet or gated full attention, as config.layer_types says; the MLP is a
// mixture of experts with one shared expert, or dense. Source: huggingface/transformers,
// src/transformers/models/qwen3_next/modeling_qwen3_next.py.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/queue.h"
#include "kernels/rope.h"
#include "kernels/step_batch.h"
#include "model/config.h"
#include "model/experts_runner.h"
#include "model/weights.h"
#include "model/workspace.h"
#include "telemetry/stage_clock.h"

namespace hotset {

// Where a layer lies within a page of the KV cache and within a state slot.
struct CacheLayout {
  int64_t kv_layer_bytes = 0;      // PagePoolShape::layer_bytes
  int64_t state_layer_floats = 0;  // StatePoolShape::layer_floats
  int64_t delta_floats = 0;        // of them, before the convolution's inputs
};

// Everything a step works on; all of it outlives the call. With a cuda::Queue every pointer but
// those in `config` is device memory.
template <typename Queue>
struct ForwardContext {
  const ModelConfig& config;
  const ModelWeights& weights;
  RopeView rope;
  Queue& queue;
  Workspace& workspace;
  ExpertsRunner<Queue>& experts;
  CacheLayout cache;
  StageClock* clock = nullptr;  // optional; CPU only
};

// Appends `ids`, batch.num_tokens of them, 1 … workspace.shape.max_chunk, each < vocab_size, to the
// sequences of `batch`, and writes the logits of its last `num_logits` rows, fp32 [num_logits,
// vocab_size]. The sequences' pages reach up to their new lengths. How a prompt is cut into calls
// does not change what it computes beyond rounding of the chunked delta rule.
template <typename Queue>
void forward(ForwardContext<Queue>& context, const StepBatch& batch, std::span<const int32_t> ids,
             int64_t num_logits, float* logits);

// The multi-token-prediction head over the tokens of the forward() that was just made with the same
// batch, whose final hidden states are still in the workspace: row i reads the hidden state of that
// call's token i together with next_ids[i], the token that follows it, and predicts the one after.
// Writes the logits of the last `num_logits` rows. Its K and V live in the last layer of the pages,
// at the positions of the trunk's tokens. Requires weights.mtp.
void forward_mtp(ForwardContext<cpu::Queue>& context, const StepBatch& batch,
                 std::span<const int32_t> next_ids, int64_t num_logits, float* logits);

}  // namespace hotset
