// SPDX-License-Identifier: Apache-2.0
// A TokenModel that says what a test tells it to: a script answers (everything fed so far) with the
// next token. Steps can be slowed down, held back at a gate, or made to fail.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "request/token_model.h"

namespace hotset::test {

struct FakeModelOptions {
  int64_t vocab_size = 300;
  int64_t max_tokens = 4096;
  int64_t prefill_chunk = 8;
  int64_t max_decode_batch = 16;
  std::chrono::microseconds extend_time{0};
  size_t max_sequences = 1000;              // more fail with ErrorKind::kResource
  int64_t max_reserved = int64_t{1} << 40;  // tokens of all sequences; more fail likewise
  bool has_heads = false;                   // keeps logits and gives the two largest
};

class FakeModel : public TokenModel {
 public:
  // From all ids of the sequence to the token whose logit is largest.
  using Script = std::function<int32_t(const std::vector<int32_t>&)>;
  // From all ids of the sequence to a failure of this extend, if any.
  // In a batch it fails the whole batch.
  using Fault = std::function<Status(const std::vector<int32_t>&)>;
  // Changes logits after the script, to inject NaN and the like.
  using LogitsHook = std::function<void(const std::vector<int32_t>&, std::span<float>)>;

  FakeModel(FakeModelOptions options, Script script);

  int64_t vocab_size() const override { return options_.vocab_size; }
  int64_t max_tokens() const override { return options_.max_tokens; }
  int64_t prefill_chunk() const override { return options_.prefill_chunk; }
  int64_t max_decode_batch() const override { return options_.max_decode_batch; }
  Result<std::unique_ptr<SequenceState>> new_sequence(int64_t num_tokens_expected) override;
  Status reserve(SequenceState& sequence, int64_t num_tokens_expected) override;
  Status extend(SequenceState& sequence, std::span<const int32_t> ids,
                std::span<float> last_logits) override;

  Result<bool> extend_head(SequenceState& sequence, std::span<const int32_t> ids, int64_t num_valid,
                           LogitsHead& head) override;
  Status extend_batch(std::span<const SequenceStep> steps, std::span<float> logits) override;
  Result<bool> extend_batch_heads(std::span<const SequenceStep> steps, int64_t num_valid,
                                  std::span<LogitsHead> heads) override;
  Status read_logits(int64_t row, std::span<float> logits) override;

  void set_fault(Fault fault) { fault_ = std::move(fault); }
  void set_logits_hook(LogitsHook hook) { logits_hook_ = std::move(hook); }

  // With the gate closed every extend waits; open lets all through.
  void close_gate();
  void open_gate();

  // Passes over the weights: pieces of prompts, and batches of `batch_sizes` sequences.
  std::atomic<int64_t> num_extends{0};
  [[nodiscard]] std::vector<size_t> batch_sizes();
  std::atomic<int64_t> num_tokens_fed{0};
  std::atomic<int64_t> num_sequences_alive{0};
  std::atomic<int64_t> num_sequences_made{0};
  std::atomic<int64_t> num_reserved{0};
  std::atomic<int64_t> num_logits_read{0};

 private:
  FakeModelOptions options_;
  Script script_;
  Fault fault_;
  LogitsHook logits_hook_;
  void pass();
  Status feed(SequenceState& sequence, std::span<const int32_t> ids, std::span<float> logits);
  void pick(int64_t row, int64_t num_valid, LogitsHead& head) const;

  std::vector<float> kept_logits_;  // rows
  std::vector<size_t> batch_sizes_;
  std::mutex gate_mutex_;  // also guards batch_sizes_
  std::condition_variable gate_opened_;
  bool gate_is_open_ = true;
};

// Says `tokens` in a row after a prompt of any length, by counting what was fed after the last
// occurrence of `separator`; then `eos` forever.
FakeModel::Script scripted_after(int32_t separator, std::vector<int32_t> tokens, int32_t eos);

}  // namespace hotset::test
