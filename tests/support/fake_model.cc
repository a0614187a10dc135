// SPDX-License-Identifier: Apache-2.0
#include "support/fake_model.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace hotset::test {
namespace {

struct FakeState : SequenceState {
  explicit FakeState(std::atomic<int64_t>& alive) : num_alive(alive) { ++num_alive; }
  ~FakeState() override { --num_alive; }
  std::atomic<int64_t>& num_alive;
  std::vector<int32_t> ids;
};

}  // namespace

FakeModel::FakeModel(FakeModelOptions options, Script script)
    : options_(options), script_(std::move(script)) {}

Result<std::unique_ptr<SequenceState>> FakeModel::new_sequence(int64_t) {
  if (static_cast<size_t>(num_sequences_alive) >= options_.max_sequences) {
    return fail("no room for another sequence", ErrorKind::kResource);
  }
  ++num_sequences_made;
  return std::make_unique<FakeState>(num_sequences_alive);
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
