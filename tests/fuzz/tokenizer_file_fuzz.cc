// SPDX-License-Identifier: Apache-2.0
// Any bytes as tokenizer.json: refused with a message, or a tokenizer that works.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = hotset::Tokenizer::parse(json, "fuzz.json");
  if (!tokenizer) {
    HS_CHECK(tokenizer.error().message.starts_with("fuzz.json: "), "{}", tokenizer.error().message);
    return 0;
  }
  constexpr std::string_view kText = "hello  world's 123\r\n e\xcc\x81 <|end|> \xe6\xbc\xa2";
  const auto ids = tokenizer->tokenize(kText, {hotset::ParseSpecial::kNone});
  if (!ids) return 0;  // a pattern may be refused by its work on a text
  for (const int32_t id : *ids) {
    HS_CHECK(!tokenizer->token_bytes(id).empty(), "id {} has no bytes", id);
  }
  return 0;
}
