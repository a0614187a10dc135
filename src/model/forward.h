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
#include "kvcache/sequence_cache.h"
#include "model/config.h"
#include "model/weights.h"
#include "model/workspace.h"
#include "telemetry/stage_clock.h"

namespace hotset {

// Everything a step works on; all of it outlives the call.
struct ForwardContext {
  const ModelConfig& config;
  const ModelWeights& weights;
  const RopeTable& rope;
  cpu::Queue& queue;
  Workspace& workspace;
  PagePool& pages;
  StatePool& states;
  StageClock* clock = nullptr;  // optional
};

// Appends `ids` (1 … workspace.shape.max_chunk of them, each < vocab_size) to the sequence and
// writes the logits of its last `num_logits` tokens, fp32 [num_logits, vocab_size]. The sequence's
// pages have been reserved up to its new length. How a prompt is cut into calls does not change
// what it computes beyond rounding of the chunked delta rule.
void forward(ForwardContext& context, SequenceCache& sequence, std::span<const int32_t> ids,
             int64_t num_logits, float* logits);

// The multi-token-prediction head over the tokens of the forward() that was just made on this
// sequence, whose final hidden states are still in the workspace: row i reads the hidden state of
// that call's token i together with next_ids[i], the token that follows it, and predicts the one
// after. Writes the logits of the last `num_logits` rows. Its K and V live in the last layer of the
// pages, at the positions of the trunk's tokens. Requires weights.mtp and next_ids.size() == that
// call's size.
void forward_mtp(ForwardContext& context, SequenceCache& sequence,
                 std::span<const int32_t> next_ids, int64_t num_logits, float* logits);

}  // namespace hotset
