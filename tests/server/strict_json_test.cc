// SPDX-License-Identifier: Apache-2.0
#include "server/strict_json.h"

#include <gtest/gtest.h>

namespace hotset {
namespace {

std::string nested(size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

TEST(StrictJson, KeepsKeyOrderAndValues) {
  const auto json = parse_strict_json(R"({"z":1,"a":[true,null,-2.5,"ä"],"m":{"y":0,"b":{}}})");
  ASSERT_TRUE(json.has_value()) << json.error().message;
  EXPECT_EQ(to_json_text(*json), R"({"z":1,"a":[true,null,-2.5,"ä"],"m":{"y":0,"b":{}}})");
}

TEST(StrictJson, LimitsDepth) {
  EXPECT_TRUE(parse_strict_json(nested(kMaxJsonDepth)).has_value());
  for (size_t depth = kMaxJsonDepth + 1; depth < (size_t{1} << 21); depth *= 2) {
    const auto json = parse_strict_json(nested(depth));
    ASSERT_FALSE(json.has_value()) << depth;
    EXPECT_NE(json.error().message.find("deeper than 64"), std::string::npos);
    EXPECT_FALSE(parse_strict_json(std::string(depth, '[')).has_value());
  }
}

TEST(StrictJson, RefusesDuplicateKeys) {
  EXPECT_FALSE(parse_strict_json(R"({"a":1,"a":2})").has_value());
  EXPECT_FALSE(parse_strict_json(R"({"x":{"a":1,"b":3,"a":2}})").has_value());
  EXPECT_TRUE(parse_strict_json(R"({"a":{"a":1},"b":{"a":2}})").has_value());
}

TEST(StrictJson, RefusesWhatIsNotJson) {
  for (const std::string text : {"",
                                 " ",
                                 "{",
                                 "}",
                                 "[1,]",
                                 "{\"a\":}",
                                 "{\"a\"}",
                                 "nul",
                                 "NaN",
                                 "1e999",
                                 "-",
                                 "01",
                                 "1 2",
                                 "\"\\ud800\"",
                                 "\"\\x\"",
                                 "\"\xff\"",
                                 "\"\xc0\x80\"",
                                 "\"a\nb\"",
                                 "{'a':1}",
                                 "// c\n1",
                                 "[1] x",
                                 "\xef\xbb\xbf"}) {
    EXPECT_FALSE(parse_strict_json(text).has_value()) << text;
  }
}

TEST(StrictJson, LimitsTheNumberOfValues) {
  std::string text = "[0";
  for (size_t i = 0; i < kMaxJsonValues; ++i) text += ",0";
  EXPECT_FALSE(parse_strict_json(text + "]").has_value());
}

// Quadratic handling of keys would take minutes here.
TEST(StrictJson, ManyKeysAreCheap) {
  std::string text = "{\"k\":0";
  for (int i = 0; i < 200'000; ++i) text += ",\"key" + std::to_string(i) + "\":0";
  EXPECT_TRUE(parse_strict_json(text + "}").has_value());
}

TEST(ToJsonText, NeverFailsOnBytesThatAreNoText) {
  EXPECT_EQ(to_json_text(Json("a\xff")), "\"a\xef\xbf\xbd\"");
}

}  // namespace
}  // namespace hotset
