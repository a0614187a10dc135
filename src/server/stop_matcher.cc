// SPDX-License-Identifier: Apache-2.0
#include "server/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace hotset {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool keep_match)
    : stops_(std::move(stops)), keep_match_(keep_match) {
  for (const std::string& stop : stops_) longest_ = std::max(longest_, stop.size());
}

std::string StopMatcher::push(std::string_view text) {
  if (has_matched_) return {};
  if (stops_.empty()) return std::string(text);
  pending_ += text;
  size_t match_at = std::string::npos, match_size = 0;
  for (const std::string& stop : stops_) {
    const size_t at = pending_.find(stop);
    if (at >= match_at) continue;  // npos is the largest of all
    match_at = at;
    match_size = stop.size();
  }
  if (match_at != std::string::npos) {
    has_matched_ = true;
    pending_.resize(match_at + (keep_match_ ? match_size : 0));
    return std::exchange(pending_, {});
  }
  const size_t certain = pending_.size() - held_length();
  std::string out = pending_.substr(0, certain);
  pending_.erase(0, certain);
  return out;
}

std::string StopMatcher::finish() {
  return std::exchange(pending_, {});
}

// The longest end of the pending text that some stop string begins with.
size_t StopMatcher::held_length() const {
  const std::string_view text(pending_);
  for (size_t length = std::min(text.size(), longest_ - 1); length > 0; --length) {
    const std::string_view tail = text.substr(text.size() - length);
    for (const std::string& stop : stops_) {
      if (std::string_view(stop).starts_with(tail)) return length;
    }
  }
  return 0;
}

}  // namespace hotset
