// SPDX-License-Identifier: Apache-2.0
#include "synth_text.h"

#include <algorithm>

#include "base/check.h"
#include "splitmix.h"

namespace hotset {

SynthText::SynthText(TextKind kind, int64_t vocab_size, uint64_t seed)
    : kind_(kind), vocab_size_(vocab_size), seed_(mix(seed)), state_(mix(seed_)) {
  HS_CHECK(vocab_size >= kSynthTopics, "{} ids for {} topics", vocab_size, kSynthTopics);
}

uint64_t SynthText::draw() {
  state_ += 0x9e3779b97f4a7c15u;
  return mix(state_) >> 11;
}

// Never the same topic twice in a row: every step goes 1 … kSynthTopics/2 − 1 further.
int64_t SynthText::topic(int64_t number) const {
  auto topic = static_cast<int64_t>(seed_ % kSynthTopics);
  for (int64_t i = 0; i < number; ++i) {
    topic +=
        1 + static_cast<int64_t>(mix(seed_ + static_cast<uint64_t>(i)) % (kSynthTopics / 2 - 1));
  }
  return topic % kSynthTopics;
}

void SynthText::next(std::span<int32_t> ids) {
  const int64_t block = topic_block(vocab_size_);
  int64_t leg = -1, from = 0, to = 0;
  for (int32_t& id : ids) {
    const int64_t at = position_++;
    if (kind_ == TextKind::kRandom || draw() % 8 == 0) {
      id = static_cast<int32_t>(draw() % static_cast<uint64_t>(vocab_size_));
      continue;
    }
    if (at / kTopicTokens != leg) {
      leg = at / kTopicTokens;
      from = topic(leg);
      to = topic(leg + 1);
    }
    const bool moved_on = static_cast<int64_t>(draw() % kTopicTokens) < at % kTopicTokens;
    const int64_t first = std::min((moved_on ? to : from) * block, vocab_size_ - 1);
    const int64_t count = std::min(block, vocab_size_ - first);
    id = static_cast<int32_t>(first + static_cast<int64_t>(draw() % static_cast<uint64_t>(count)));
  }
}

}  // namespace hotset
