// SPDX-License-Identifier: Apache-2.0
#include "server/choices.h"

#include <algorithm>
#include <utility>

namespace hotset {

Choices::Choices(std::vector<std::unique_ptr<TextStream>> streams)
    : streams_(std::move(streams)), has_ended_(streams_.size(), false) {}

std::optional<ChoicePiece> Choices::try_next() {
  for (size_t i = 0; i < streams_.size(); ++i) {
    if (has_ended_[i]) continue;
    auto piece = streams_[i]->try_next();
    if (!piece) continue;
    if (piece->token) ++num_tokens_;
    if (piece->finish) {
      has_ended_[i] = true;
      add_stats(piece->stats);
      ++num_ended_;
    }
    return ChoicePiece{i, std::move(*piece)};
  }
  return std::nullopt;
}

void Choices::add_stats(const RequestStats& stats) {
  if (num_ended_ == 0) {
    stats_ = stats;
    return;
  }
  stats_.queue_s = std::max(stats_.queue_s, stats.queue_s);
  stats_.prefill_s = std::max(stats_.prefill_s, stats.prefill_s);
  stats_.decode_s = std::max(stats_.decode_s, stats.decode_s);
  stats_.num_cached_tokens = std::min(stats_.num_cached_tokens, stats.num_cached_tokens);
  stats_.num_output_tokens += stats.num_output_tokens;
}

void Choices::set_wakeup(const std::function<void()>& wakeup) {
  for (const auto& stream : streams_) stream->set_wakeup(wakeup);
}

void Choices::cancel() {
  for (const auto& stream : streams_) stream->cancel();
}

}  // namespace hotset
