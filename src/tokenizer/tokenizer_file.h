// SPDX-License-Identifier: Apache-2.0
// What a tokenizer.json says, field by field. Types and unsupported settings are checked here; what
// needs two fields at once (do the merges name tokens?) is checked in tokenizer_build.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace hotset {

struct TokenizerFile {
  // Files beyond this are refused; the largest published ones have half of it.
  static constexpr size_t kMaxBytes = size_t{64} << 20;
  static constexpr size_t kMaxAddedTokens = 100'000;

  struct VocabEntry {
    std::string_view spelled;  // in the byte alphabet, or an added token's text
    int32_t id = 0;
  };
  struct AddedToken {
    std::string_view text;
    int32_t id = 0;
    bool special = false;
    bool normalized = false;
  };
  using Merge = std::pair<std::string_view, std::string_view>;

  std::string name;  // for messages
  std::vector<VocabEntry> vocab;
  std::vector<Merge> merges;
  std::vector<AddedToken> added_tokens;
  std::optional<std::string_view> split_pattern;
  bool nfc = false;
  bool ignore_merges = false;

  // The parser's buffers, which the views above point into.
  std::shared_ptr<const void> storage;
};

// tokenizer_config.json, as far as tokenizing needs it.
struct TokenizerConfigFile {
  struct AddedToken {
    int64_t id = 0;
    std::string text;
  };
  std::optional<std::string> bos_token, eos_token, pad_token;
  std::vector<AddedToken> added_tokens;  // added_tokens_decoder
};

Result<TokenizerFile> read_tokenizer_file(const std::string& path);
Result<TokenizerFile> parse_tokenizer_file(std::string_view json, std::string_view name);
Result<TokenizerConfigFile> read_tokenizer_config_file(const std::string& path);

}  // namespace hotset
