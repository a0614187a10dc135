// SPDX-License-Identifier: Apache-2.0
#include "support/fake_model.h"

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

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

Status FakeModel::extend(SequenceState& sequence, std::span<const int32_t> ids,
                         std::span<float> last_logits) {
  {
    std::unique_lock lock(gate_mutex_);
    gate_opened_.wait(lock, [this] { return gate_is_open_; });
  }
  if (options_.extend_time.count() > 0) std::this_thread::sleep_for(options_.extend_time);
  auto& state = static_cast<FakeState&>(sequence);
  state.ids.insert(state.ids.end(), ids.begin(), ids.end());
  HS_RETURN_IF_ERROR(reserve(sequence, static_cast<int64_t>(state.ids.size())));
  ++num_extends;
  num_tokens_fed += static_cast<int64_t>(ids.size());
  if (fault_) {
    if (const Status status = fault_(state.ids); !status) return status;
  }
  std::fill(last_logits.begin(), last_logits.end(), 0.0f);
  last_logits[static_cast<size_t>(script_(state.ids))] = 20.0f;
  if (logits_hook_) logits_hook_(state.ids, last_logits);
  return {};
}

Result<bool> FakeModel::extend_head(SequenceState& sequence, std::span<const int32_t> ids,
                                    int64_t num_valid, LogitsHead& head) {
  if (!options_.has_heads) return false;
  kept_logits_.resize(static_cast<size_t>(options_.vocab_size));
  HS_RETURN_IF_ERROR(extend(sequence, ids, kept_logits_));
  head.largest.clear();
  head.all_finite = true;
  for (int32_t id = 0; id < num_valid; ++id) {
    const float logit = kept_logits_[static_cast<size_t>(id)];
    head.largest.push_back({id, logit});
    head.all_finite = head.all_finite && std::isfinite(logit);
  }
  std::stable_sort(head.largest.begin(), head.largest.end(),
                   [](const auto& a, const auto& b) { return a.logit > b.logit; });
  head.cut = head.largest[2].logit;
  head.largest.resize(2);
  return true;
}

Status FakeModel::read_logits(std::span<float> last_logits) {
  ++num_logits_read;
  std::copy(kept_logits_.begin(), kept_logits_.end(), last_logits.begin());
  return {};
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
