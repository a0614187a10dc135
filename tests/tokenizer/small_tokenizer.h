// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json of a few hundred bytes' worth of knowledge: the 256 bytes, some merges and two
// added tokens. Tests bend single fields of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace hotset::testing {

struct SmallTokenizer {
  // Each is JSON text.
  std::string normalizer = R"({"type":"NFC"})";
  std::string pre_tokenizer = byte_level(true);
  std::string added_tokens = R"([
    {"id":300,"content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,
     "normalized":false,"special":true},
    {"id":301,"content":"<think>","single_word":false,"lstrip":false,"rstrip":false,
     "normalized":false,"special":false}])";
  std::string model_settings = R"("type":"BPE","dropout":null,"ignore_merges":false)";
  std::string extra_vocab;  // `,"key":id` …
  // Applied in order; the results get ids from 256 on.
  std::vector<std::pair<std::string, std::string>> merges = {
      {"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {"Ġ", "w"}, {"o", "r"}, {"Ġw", "or"}};
  bool merges_as_strings = false;

  [[nodiscard]] std::string json() const;
  [[nodiscard]] Result<Tokenizer> load() const { return Tokenizer::parse(json(), "small.json"); }

  static std::string byte_level(bool use_regex);
  // Sequence of Split(pattern) and ByteLevel; `pattern` is JSON text without its quotes.
  static std::string split(const std::string& pattern);
};

// The byte alphabet's spelling of one byte.
std::string spell(unsigned char byte);

}  // namespace hotset::testing
