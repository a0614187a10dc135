// SPDX-License-Identifier: Apache-2.0
// Puts the JSON together.
#include "small_tokenizer.h"

#include <fmt/format.h>

#include "base/utf8.h"

namespace hotset::testing {
namespace {

std::string quoted(const std::string& text) {
  return text == "\"" ? R"("\"")" : text == "\\" ? R"("\\")" : '"' + text + '"';
}

}  // namespace

std::string spell(unsigned char byte) {
  const auto itself = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  char32_t code = byte;
  if (!itself(byte)) {
    code = 0x100;
    for (int b = 0; b < byte; ++b) code += itself(b) ? 0 : 1;
  }
  std::string out;
  utf8_append(out, code);
  return out;
}

std::string SmallTokenizer::byte_level(bool use_regex) {
  return fmt::format(
      R"({{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":{}}})",
      use_regex);
}

std::string SmallTokenizer::split(const std::string& pattern) {
  return fmt::format(
      R"({{"type":"Sequence","pretokenizers":[{{"type":"Split","pattern":{{"Regex":"{}"}},)"
      R"("behavior":"Isolated","invert":false}},{}]}})",
      pattern, byte_level(false));
}

std::string SmallTokenizer::json() const {
  std::string vocab, merge_list;
  for (int byte = 0; byte < 256; ++byte) {
    vocab += fmt::format("{}{}:{}", byte == 0 ? "" : ",", quoted(spell(static_cast<uint8_t>(byte))),
                         byte);
  }
  int id = 256;
  for (const auto& [left, right] : merges) {
    vocab += fmt::format(",{}:{}", quoted(left + right), id);
    if (id++ != 256) merge_list += ',';
    merge_list += merges_as_strings ? fmt::format(R"("{} {}")", left, right)
                                    : fmt::format(R"(["{}","{}"])", left, right);
  }
  return fmt::format(
      R"({{"version":"1.0","truncation":null,"padding":null,"added_tokens":{},"normalizer":{},)"
      R"("pre_tokenizer":{},"post_processor":null,"decoder":{},"model":{{{},"vocab":{{{}{}}},)"
      R"("merges":[{}]}}}})",
      added_tokens, normalizer, pre_tokenizer, byte_level(true), model_settings, vocab, extra_vocab,
      merge_list);
}

}  // namespace hotset::testing
