// SPDX-License-Identifier: Apache-2.0
// What a LanguageModel computes on: a processor with the weights, the caches and the buffers of one
// loaded model. One thread at a time (the engine's) uses it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "kvcache/page_pool.h"
#include "kvcache/sequence_cache.h"
#include "kvcache/state_pool.h"
#include "model/config.h"
#include "model/routing_listener.h"
#include "request/logits_head.h"
#include "telemetry/stage_clock.h"

namespace hotset {

inline constexpr int64_t kPageTokens = 64;

// Sequences that decode together at most. On a GPU a step of more tokens is not shared with the
// CPU (gpu_experts.h), and each number of sequences is a recorded graph of its own.
inline constexpr int64_t kMaxDecodeBatch = 16;

// The tokens a step appends to one sequence; its pages reach that far already.
struct SequencePart {
  SequenceCache* cache = nullptr;
  std::span<const int32_t> ids;
};

class Backend {
 public:
  virtual ~Backend() = default;

  [[nodiscard]] virtual PagePool& pages() = 0;
  [[nodiscard]] virtual StatePool& states() = 0;

  // No step may ask for more logits than this.
  [[nodiscard]] virtual int64_t max_logits() const = 0;
  // One step over all parts, at most `prefill_chunk` tokens in all. Writes the logits of the last
  // `num_logits` tokens, [num_logits, vocab_size], to host memory, and commits the sequences'
  // lengths. After an error the parts' sequences are of no more use. Where has_heads(), `logits`
  // may be null: they stay where they are.
  virtual Status forward(std::span<const SequencePart> parts, int64_t num_logits,
                         float* logits) = 0;

  // Of the rows of logits that the last forward() computed: the largest of the first `num_valid` of
  // each (at most kMaxDecodeBatch rows, one a head); all of one row, [vocab_size]. Only where
  // has_heads().
  [[nodiscard]] virtual bool has_heads() const { return false; }
  virtual Status read_heads(int64_t num_valid, std::span<LogitsHead> heads);
  virtual Status read_logits(int64_t row, float* logits);

  // Makes ready all that serving needs: steps of one token each of up to `num_seqs` sequences, and
  // prompts. After that no step makes the driver allocate.
  virtual Status prepare_batches(int64_t /*num_seqs*/) { return {}; }

  // Drafts for the tokens of the last forward(): the ids that follow each of them.
  [[nodiscard]] virtual bool has_mtp() const = 0;
  virtual Status forward_mtp(const SequencePart& part, int64_t num_logits, float* logits) = 0;

  virtual void set_clock(StageClock* clock) = 0;
  // Between steps; null stops.
  virtual Status listen_to_routing(RoutingListener listener) = 0;
};

// The MTP head's attention, where it is loaded, is one more layer of the pages.
[[nodiscard]] PagePoolShape page_pool_shape(const ModelConfig& config, bool mtp,
                                            int64_t value_bytes);
[[nodiscard]] StatePoolShape state_pool_shape(const ModelConfig& config, int64_t num_slots);
[[nodiscard]] int64_t kv_bytes_per_token(const ModelConfig& config, int64_t value_bytes);

// Columns of the widest input that a linear of this model reads.
[[nodiscard]] int64_t widest_input(const ModelConfig& config);

}  // namespace hotset
