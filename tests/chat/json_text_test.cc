// SPDX-License-Identifier: Apache-2.0
#include "chat/json_text.h"

#include <gtest/gtest.h>

namespace hotset {
namespace {

TEST(JsonText, MembersAreFoundAsWritten) {
  constexpr std::string_view kObject =
      R"( {"name": "a:b,{", "x": {"arguments": 1}, "arguments" : {"k": [1, {"z": "}"}]} , "last": null } )";
  EXPECT_EQ(find_member_text(kObject, "arguments"), R"({"k": [1, {"z": "}"}]})");
  EXPECT_EQ(find_member_text(kObject, "name"), R"("a:b,{")");
  EXPECT_EQ(find_member_text(kObject, "last"), "null");
  EXPECT_EQ(find_member_text(kObject, "z"), "");
  EXPECT_EQ(find_member_text("{}", "z"), "");
}

TEST(JsonText, NestingIsBounded) {
  const auto nested = [](size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_TRUE(parse_bounded_json(nested(kMaxJsonTextDepth)));
  EXPECT_FALSE(parse_bounded_json(nested(kMaxJsonTextDepth + 1)));
  EXPECT_FALSE(parse_bounded_json(nested(1'000'000)));
  EXPECT_TRUE(parse_bounded_json("\"" + std::string(1000, '[') + "\""));
  EXPECT_FALSE(parse_bounded_json("{"));
  EXPECT_FALSE(parse_bounded_json("\"\\"));
}

}  // namespace
}  // namespace hotset
