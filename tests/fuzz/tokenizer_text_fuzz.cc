// SPDX-License-Identifier: Apache-2.0
// Any bytes as text, through the scanner and through the regex: refused as invalid UTF-8, or the
// same ids from both, which stand for the text again.
#include <cstdint>
#include <string_view>

#include "../tokenizer/small_tokenizer.h"
#include "base/check.h"
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

namespace {

hotset::Tokenizer load(const char* pattern) {
  hotset::testing::SmallTokenizer small;
  small.normalizer = "null";
  small.pre_tokenizer = hotset::testing::SmallTokenizer::split(pattern);
  return small.load().value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // JSON text: backslashes doubled.
  static const hotset::Tokenizer scanner = load(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*)"
      R"(|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)");
  static const hotset::Tokenizer normalizing = hotset::testing::SmallTokenizer{}.load().value();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const bool valid = hotset::utf8_is_valid(text);
  const auto ids = scanner.tokenize(text);
  HS_CHECK(ids.has_value() == valid, "{}", valid ? ids.error().message : "invalid text accepted");
  const auto plain = scanner.tokenize(text, {hotset::ParseSpecial::kNone});
  HS_CHECK(plain.has_value() == valid, "the two ways to parse disagree");
  const auto normalized = normalizing.tokenize(text);
  HS_CHECK(normalized.has_value() == valid, "{}", valid ? normalized.error().message : "accepted");
  if (!valid) return 0;
  HS_CHECK(scanner.detokenize(*ids) == text, "the text doesn't come back");
  HS_CHECK(scanner.detokenize(*plain) == text, "the plain text doesn't come back");
  for (const int32_t id : *plain) HS_CHECK(!scanner.is_added(id), "added token {} unasked", id);
  return 0;
}
