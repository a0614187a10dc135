// SPDX-License-Identifier: Apache-2.0
#include "server/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace hotset {
namespace {

// The definition: cut the whole text at the earliest match.
std::string cut_at_stop(const std::string& text, const std::vector<std::string>& stops,
                        bool keep_match) {
  size_t best = std::string::npos, size = 0;
  for (const std::string& stop : stops) {
    const size_t at = text.find(stop);
    if (at < best) {
      best = at;
      size = stop.size();
    }
  }
  return best == std::string::npos ? text : text.substr(0, best + (keep_match ? size : 0));
}

// A matcher that sees pieces may find a later, longer string complete before an earlier one ends;
// with strings of one length, or none inside another, both definitions agree.
TEST(StopMatcher, AgreesWithTheDefinitionHoweverTheTextIsCut) {
  std::mt19937 rng(4);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (size_t i = 0; i < 1 + rng() % 30; ++i) text += static_cast<char>('a' + rng() % 2);
    std::vector<std::string> stops;
    const size_t length = 1 + rng() % 5;
    for (size_t s = 0; s < 1 + rng() % 3; ++s) {
      std::string stop;
      for (size_t i = 0; i < length; ++i) stop += static_cast<char>('a' + rng() % 2);
      stops.push_back(stop);
    }
    const bool keep = rng() % 2 == 0;
    StopMatcher matcher(stops, keep);
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t piece = 1 + rng() % 4;
      out += matcher.push(text.substr(at, piece));
      at += piece;
    }
    out += matcher.finish();
    ASSERT_EQ(out, cut_at_stop(text, stops, keep)) << text << " stop " << stops[0];
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"END"}, false);
  EXPECT_EQ(matcher.push("abE"), "ab");
  EXPECT_EQ(matcher.push("N"), "");
  EXPECT_EQ(matcher.push("X"), "ENX");
  EXPECT_EQ(matcher.push("EN"), "");
  EXPECT_EQ(matcher.push("DING"), "");
  EXPECT_TRUE(matcher.has_matched());
  EXPECT_EQ(matcher.push("more"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, GivesHeldTextAtTheEnd) {
  StopMatcher matcher({"END"}, false);
  EXPECT_EQ(matcher.push("abEN"), "ab");
  EXPECT_EQ(matcher.finish(), "EN");
}

}  // namespace
}  // namespace hotset
