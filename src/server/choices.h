// SPDX-License-Identifier: Apache-2.0
// The n answers that one request asked for, each a TextStream of its own: what comes next from any
// of them, which have ended, and what they took together. One thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "server/text_stream.h"

namespace hotset {

struct ChoicePiece {
  size_t index = 0;
  TextPiece piece;
};

class Choices {
 public:
  explicit Choices(std::vector<std::unique_ptr<TextStream>> streams);

  [[nodiscard]] size_t size() const { return streams_.size(); }
  // The next piece of the first choice that has one; nothing when all would have to be waited for.
  [[nodiscard]] std::optional<ChoicePiece> try_next();
  [[nodiscard]] bool all_ended() const { return num_ended_ == streams_.size(); }
  // Of the choices that have ended: the prompt counts once, output tokens add up, and the times are
  // those of the slowest.
  [[nodiscard]] const RequestStats& stats() const { return stats_; }
  // Output tokens handed out so far.
  [[nodiscard]] int64_t num_tokens() const { return num_tokens_; }

  void set_wakeup(const std::function<void()>& wakeup);
  void cancel();

 private:
  void add_stats(const RequestStats& stats);

  std::vector<std::unique_ptr<TextStream>> streams_;
  std::vector<bool> has_ended_;
  size_t num_ended_ = 0;
  int64_t num_tokens_ = 0;
  RequestStats stats_;
};

}  // namespace hotset
