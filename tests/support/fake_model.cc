// SPDX-License-Identifier: Apache-2.0
#include "support/fake_model.h"

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "base/check.h"

namespace hotset::test {
namespace {

struct FakeState : SequenceState {
  explicit FakeState(FakeModel& owner) : model(owner) { ++model.num_sequences_alive; }
  ~FakeState() override {
    --model.num_sequences_alive;
    model.num_reserved -= num_reserved;
  }
  FakeModel& model;
  int64_t num_reserved = 0;
  std::vector<int32_t> ids;
};

}  // namespace

FakeModel::FakeModel(FakeModelOptions options, Script script)
    : options_(options), script_(std::move(script)) {}

Result<std::unique_ptr<SequenceState>> FakeModel::new_sequence(int64_t num_tokens_expected) {
  if (static_cast<size_t>(num_sequences_alive) >= options_.max_sequences) {
    return fail("no room for another sequence", ErrorKind::kResource);
  }
  auto state = std::make_unique<FakeState>(*this);
  HS_RETURN_IF_ERROR(reserve(*state, num_tokens_expected));
  ++num_sequences_made;
  return state;
}

Status FakeModel::reserve(SequenceState& sequence, int64_t num_tokens_expected) {
  auto& state = static_cast<FakeState&>(sequence);
  const int64_t more = std::max<int64_t>(0, num_tokens_expected - state.num_reserved);
  if (num_reserved + more > options_.max_reserved) {
    return fail("no room for more tokens", ErrorKind::kResource);
  }
  state.num_reserved += more;
  num_reserved += more;
  return {};
}

// A pass over the weights.
void FakeModel::pass() {
  {
    std::unique_lock lock(gate_mutex_);
    gate_opened_.wait(lock, [this] { return gate_is_open_; });
  }
  if (options_.extend_time.count() > 0) std::this_thread::sleep_for(options_.extend_time);
  ++num_extends;
}

Status FakeModel::feed(SequenceState& sequence, std::span<const int32_t> ids,
                       std::span<float> logits) {
  auto& state = static_cast<FakeState&>(sequence);
  state.ids.insert(state.ids.end(), ids.begin(), ids.end());
  HS_RETURN_IF_ERROR(reserve(sequence, static_cast<int64_t>(state.ids.size())));
  num_tokens_fed += static_cast<int64_t>(ids.size());
  if (fault_) HS_RETURN_IF_ERROR(fault_(state.ids));
  std::fill(logits.begin(), logits.end(), 0.0f);
  logits[static_cast<size_t>(script_(state.ids))] = 20.0f;
  if (logits_hook_) logits_hook_(state.ids, logits);
  return {};
}

Status FakeModel::extend(SequenceState& sequence, std::span<const int32_t> ids,
                         std::span<float> last_logits) {
  pass();
  return feed(sequence, ids, last_logits);
}

Status FakeModel::extend_batch(std::span<const SequenceStep> steps, std::span<float> logits) {
  HS_CHECK(!steps.empty() && std::ssize(steps) <= options_.max_decode_batch, "{} steps",
           steps.size());
  pass();
  {
    const std::lock_guard lock(gate_mutex_);
    batch_sizes_.push_back(steps.size());
  }
  const auto width = static_cast<size_t>(options_.vocab_size);
  HS_CHECK(logits.size() == steps.size() * width, "{} logits", logits.size());
  for (size_t row = 0; row < steps.size(); ++row) {
    HS_RETURN_IF_ERROR(feed(*steps[row].sequence, std::span(&steps[row].id, 1),
                            logits.subspan(row * width, width)));
  }
  return {};
}

void FakeModel::pick(int64_t row, int64_t num_valid, LogitsHead& head) const {
  const float* logits = kept_logits_.data() + row * options_.vocab_size;
  head.largest.clear();
  head.all_finite = true;
  for (int32_t id = 0; id < num_valid; ++id) {
    head.largest.push_back({id, logits[id]});
    head.all_finite = head.all_finite && std::isfinite(logits[id]);
  }
  std::stable_sort(head.largest.begin(), head.largest.end(),
                   [](const auto& a, const auto& b) { return a.logit > b.logit; });
  head.cut = head.largest[2].logit;
  head.largest.resize(2);
}

Result<bool> FakeModel::extend_head(SequenceState& sequence, std::span<const int32_t> ids,
                                    int64_t num_valid, LogitsHead& head) {
  if (!options_.has_heads) return false;
  kept_logits_.resize(static_cast<size_t>(options_.vocab_size));
  HS_RETURN_IF_ERROR(extend(sequence, ids, kept_logits_));
  pick(0, num_valid, head);
  return true;
}

Result<bool> FakeModel::extend_batch_heads(std::span<const SequenceStep> steps, int64_t num_valid,
                                           std::span<LogitsHead> heads) {
  if (!options_.has_heads) return false;
  kept_logits_.resize(steps.size() * static_cast<size_t>(options_.vocab_size));
  HS_RETURN_IF_ERROR(extend_batch(steps, kept_logits_));
  for (size_t row = 0; row < heads.size(); ++row) {
    pick(static_cast<int64_t>(row), num_valid, heads[row]);
  }
  return true;
}

Status FakeModel::read_logits(int64_t row, std::span<float> logits) {
  ++num_logits_read;
  std::copy_n(kept_logits_.begin() + row * options_.vocab_size, logits.size(), logits.begin());
  return {};
}

std::vector<size_t> FakeModel::batch_sizes() {
  const std::lock_guard lock(gate_mutex_);
  return batch_sizes_;
}

void FakeModel::close_gate() {
  const std::lock_guard lock(gate_mutex_);
  gate_is_open_ = false;
}

void FakeModel::open_gate() {
  const std::lock_guard lock(gate_mutex_);
  gate_is_open_ = true;
  gate_opened_.notify_all();
}

FakeModel::Script scripted_after(int32_t separator, std::vector<int32_t> tokens, int32_t eos) {
  return [separator, tokens = std::move(tokens), eos](const std::vector<int32_t>& ids) {
    const auto last = std::find(ids.rbegin(), ids.rend(), separator);
    const auto count = static_cast<size_t>(last - ids.rbegin());
    return count < tokens.size() ? tokens[count] : eos;
  };
}

}  // namespace hotset::test
