// SPDX-License-Identifier: Apache-2.0
#include "support/toy_tokenizer.h"

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/utf8.h"

namespace hotset::test {
namespace {

using Json = nlohmann::ordered_json;

// The byte alphabet of GPT-2: printable bytes stand for themselves, the others for U+0100 and up.
std::string byte_symbol(int byte, int& next_free) {
  const bool is_printable =
      (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  std::string out;
  utf8_append(out, static_cast<char32_t>(is_printable ? byte : 256 + next_free++));
  return out;
}

Json added_token(int32_t id, const char* content, bool is_special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", is_special}};
}

}  // namespace

Tokenizer make_toy_tokenizer() {
  Json vocab = Json::object();
  int next_free = 0;
  for (int byte = 0; byte < 256; ++byte) vocab[byte_symbol(byte, next_free)] = byte;
  Json split = {{"type", "Split"},
                {"pattern", {{"Regex", "\\p{L}+|[^\\p{L}]+"}}},
                {"behavior", "Isolated"},
                {"invert", false}};
  Json byte_level = {{"type", "ByteLevel"},
                     {"add_prefix_space", false},
                     {"trim_offsets", false},
                     {"use_regex", false}};
  Json json;
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["added_tokens"] = {added_token(kToyEos, "<|im_end|>", true),
                          added_token(kToyStart, "<|im_start|>", true),
                          added_token(kToyThinkEnd, "</think>", false)};
  json["normalizer"] = {{"type", "NFC"}};
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}};
  json["post_processor"] = byte_level;
  json["decoder"] = byte_level;
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", ""},
                   {"end_of_word_suffix", ""},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", false},
                   {"vocab", vocab},
                   {"merges", Json::array()}};
  auto tokenizer = Tokenizer::parse(json.dump(), "toy tokenizer");
  HS_CHECK(tokenizer.has_value(), "{}", tokenizer.error().message);
  return std::move(tokenizer).value();
}

std::vector<int32_t> toy_ids(const Tokenizer& tokenizer, std::string_view text) {
  auto ids = tokenizer.tokenize(text);
  HS_CHECK(ids.has_value(), "{}", ids.error().message);
  return std::move(ids).value();
}

}  // namespace hotset::test
