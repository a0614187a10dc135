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
  using Fault = std::function<Status(const std::vector<int32_t>&)>;
  // Changes logits after the script, to inject NaN and the like.
  using LogitsHook = std::function<void(const std::vector<int32_t>&, std::span<float>)>;

  FakeModel(FakeModelOptions options, Script script);

  int64_t vocab_size() const override { return options_.vocab_size; }
  int64_t max_tokens() const override { return options_.max_tokens; }
  int64_t prefill_chunk() const override { return options_.prefill_chunk; }
  Result<std::unique_ptr<SequenceState>> new_sequence(int64_t num_tokens_expected) override;
  Status reserve(SequenceState& sequence, int64_t num_tokens_expected) override;
  Status extend(SequenceState& sequence, std::span<const int32_t> ids,
                std::span<float> last_logits) override;

  Result<bool> extend_head(SequenceState& sequence, std::span<const int32_t> ids, int64_t num_valid,
                           LogitsHead& head) override;
  Status read_logits(std::span<float> last_logits) override;

  void set_fault(Fault fault) { fault_ = std::move(fault); }
  void set_logits_hook(LogitsHook hook) { logits_hook_ = std::move(hook); }

  // With the gate closed every extend waits; open lets all through.
  void close_gate();
  void open_gate();

  std::atomic<int64_t> num_extends{0};
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
  std::vector<float> kept_logits_;
  std::mutex gate_mutex_;
  std::condition_variable gate_opened_;
  bool gate_is_open_ = true;
};

// Says `tokens` in a row after a prompt of any length, by counting what was fed after the last
// occurrence of `separator`; then `eos` forever.
FakeModel::Script scripted_after(int32_t separator, std::vector<int32_t> tokens, int32_t eos);

}  // namespace hotset::test
