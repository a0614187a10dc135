// SPDX-License-Identifier: Apache-2.0
// The seam between the engine and whatever computes logits: token ids in, logits out. The real
// model implements it over its weights and caches; tests implement it with a script.
//
// Threads: all calls come from one thread at a time (the engine's). A SequenceState belongs to the
// model that made it and must be destroyed before that model.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "request/logits_head.h"

namespace hotset {

// The running state of one sequence (KV pages, recurrent states); opaque to the engine.
class SequenceState {
 public:
  virtual ~SequenceState() = default;
};

// One more token of one sequence.
struct SequenceStep {
  SequenceState* sequence = nullptr;
  int32_t id = 0;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;

  // Width of the logits, padded rows included.
  [[nodiscard]] virtual int64_t vocab_size() const = 0;
  // The longest sequence, prompt and answer together.
  [[nodiscard]] virtual int64_t max_tokens() const = 0;
  // Tokens the engine passes to one extend() of a prompt. Cancel is seen between two calls.
  [[nodiscard]] virtual int64_t prefill_chunk() const = 0;
  // The most steps that one extend_batch() takes; at least 1.
  [[nodiscard]] virtual int64_t max_decode_batch() const = 0;

  // An empty sequence. `num_tokens_expected` is a hint for reserving: a sequence may grow past it,
  // up to max_tokens(). ErrorKind::kResource means: not now, perhaps after another one has ended.
  [[nodiscard]] virtual Result<std::unique_ptr<SequenceState>> new_sequence(
      int64_t num_tokens_expected) = 0;

  // The same promise for a sequence that goes on: room for `num_tokens_expected` in all. After an
  // error, which is kResource, nothing has changed, and the sequence can be used as before.
  [[nodiscard]] virtual Status reserve(SequenceState& sequence, int64_t num_tokens_expected) = 0;

  // Appends ids (at least one) to the sequence and writes the logits of the last one. After an
  // error the sequence is of no more use; others are not affected.
  [[nodiscard]] virtual Status extend(SequenceState& sequence, std::span<const int32_t> ids,
                                      std::span<float> last_logits /* [vocab_size] */) = 0;

  // As extend() for each of `steps`, in one pass over the weights: one token each of sequences that
  // differ and have room for it (reserve). Writes a row of logits a step, which is what extend()
  // would have written: to the bit where the model's products are of integers or on the CPU, else
  // but for the rounding of sums. After an error none of these sequences is of any more use.
  [[nodiscard]] virtual Status extend_batch(
      std::span<const SequenceStep> steps,
      std::span<float> logits /* [steps.size(), vocab_size] */) = 0;

  // Both with the largest of the first `num_valid` logits of each row, for models that keep logits
  // where reading all of them takes long. False: this model does not, and nothing has happened.
  [[nodiscard]] virtual Result<bool> extend_head(SequenceState& /*sequence*/,
                                                 std::span<const int32_t> /*ids*/,
                                                 int64_t /*num_valid*/, LogitsHead& /*head*/) {
    return false;
  }
  [[nodiscard]] virtual Result<bool> extend_batch_heads(
      std::span<const SequenceStep> /*steps*/, int64_t /*num_valid*/,
      std::span<LogitsHead> /*heads, one a step*/) {
    return false;
  }
  // All logits of a row of these two (extend_head() has row 0), if nothing was extended since.
  [[nodiscard]] virtual Status read_logits(int64_t /*row*/, std::span<float> /*logits*/) {
    return fail("this model has no logits to read", ErrorKind::kInternal);
  }
};

}  // namespace hotset
