// SPDX-License-Identifier: Apache-2.0
// Token ids to measure with, and the topics of synthetic checkpoints.
//
// A vocabulary is cut into kSynthTopics blocks of equal size. A checkpoint written with routing
// zipf:S gives each block's embeddings a direction of their own, which its routers read. A drifting
// text stays with a topic for about kTopicTokens tokens and then slides to another one; one token
// in eight comes from anywhere, as function words do.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace hotset {

inline constexpr int64_t kSynthTopics = 16;
inline constexpr int64_t kTopicTokens = 256;

// Ids of one topic; the last one may have fewer.
[[nodiscard]] constexpr int64_t topic_block(int64_t vocab_size) {
  return (vocab_size + kSynthTopics - 1) / kSynthTopics;
}

enum class TextKind : uint8_t {
  kRandom,  // any id, whatever came before
  kDrift,
};

class SynthText {
 public:
  // Same arguments, same ids. `vocab_size` is at least kSynthTopics.
  SynthText(TextKind kind, int64_t vocab_size, uint64_t seed);

  // The ids that come next.
  void next(std::span<int32_t> ids);

 private:
  [[nodiscard]] int64_t topic(int64_t number) const;
  uint64_t draw();

  TextKind kind_;
  int64_t vocab_size_;
  uint64_t seed_;
  uint64_t state_;
  int64_t position_ = 0;
};

}  // namespace hotset
