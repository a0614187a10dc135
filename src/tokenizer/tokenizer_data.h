// SPDX-License-Identifier: Apache-2.0
// A loaded tokenizer: the tables that tokenizing reads and nobody writes.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/split.h"
#include "tokenizer/tokenizer_file.h"
#include "tokenizer/vocabulary.h"

namespace hotset {

struct TokenizerData {
  Vocabulary vocabulary;
  Bpe bpe;
  Splitter splitter;
  AddedTokens raw_added;         // matched in the text as it is
  AddedTokens normalized_added;  // matched after normalization
  std::vector<uint8_t> added;    // by id: 0 no, 1 added, 2 added and special
  bool nfc = false;
  bool ignore_merges = false;
  std::optional<int32_t> bos_id, eos_id, pad_id;
};

// Checks the file's parts against each other and makes the tables.
Result<std::unique_ptr<TokenizerData>> build_tokenizer(const TokenizerFile& file);

// Adds what tokenizer_config.json says; contradictions with tokenizer.json are errors.
Status apply_tokenizer_config(const TokenizerConfigFile& config, TokenizerData& data);

}  // namespace hotset
