// SPDX-License-Identifier: Apache-2.0
// Finds stop strings in text that arrives in pieces. Text that may be the beginning of a stop
// string is held back until it is known not to be one. The earliest match wins; among those that
// start at the same place, the one listed first.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hotset {

class StopMatcher {
 public:
  // `keep_match`: the matched string stays in the output (include_stop_str_in_output).
  StopMatcher(std::vector<std::string> stops, bool keep_match);

  // The text that is certain now. After a match: what came before it, and nothing ever again.
  [[nodiscard]] std::string push(std::string_view text);
  // The text that was held back; empty after a match.
  [[nodiscard]] std::string finish();
  [[nodiscard]] bool has_matched() const { return has_matched_; }

 private:
  [[nodiscard]] size_t held_length() const;

  std::vector<std::string> stops_;
  size_t longest_ = 0;
  bool keep_match_;
  bool has_matched_ = false;
  std::string pending_;  // not handed out yet; shorter than the longest stop string between calls
};

}  // namespace hotset
