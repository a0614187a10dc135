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
#include "model/stage_marks.h"
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
  StageMarks* marks = nullptr;  // optional; GPU only
};

// One step: appends `ids` (1 … workspace.shape.max_step, each < vocab_size) to sequences, and
// writes the logits of its last `num_logits` rows, fp32 [num_logits, vocab_size].
//
// The rows come in pieces of at most workspace.shape.max_chunk, in their order: each layer takes
// one piece after the other before the next layer begins, so that a layer's weights are needed once
// a step. A sequence may go on from piece to piece; token_begin counts from a piece's first row.
// The sequences' pages reach up to their new lengths. How a prompt is cut into steps and pieces
// does not change what it computes beyond rounding of the chunked delta rule.
template <typename Queue>
void forward(ForwardContext<Queue>& context, std::span<const StepBatch> pieces,
             std::span<const int32_t> ids, int64_t num_logits, float* logits);

// The multi-token-prediction head over the tokens of the forward() that was just made with this one
// piece, whose final hidden states are still in the workspace: row i reads the hidden state of that
// call's token i together with next_ids[i], the token that follows it, and predicts the one after.
// Writes the logits of the last `num_logits` rows. Its K and V live in the last layer of the pages,
// at the positions of the trunk's tokens. Requires weights.mtp.
void forward_mtp(ForwardContext<cpu::Queue>& context, const StepBatch& batch,
                 std::span<const int32_t> next_ids, int64_t num_logits, float* logits);

}  // namespace hotset
