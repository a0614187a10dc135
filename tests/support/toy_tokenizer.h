// SPDX-License-Identifier: Apache-2.0
// A byte-level tokenizer without merges: ids 0–255 are the bytes, in the order of the usual byte
// alphabet, and a few added tokens follow. Small enough to reason about in tests.
#pragma once

#include "tokenizer/tokenizer.h"

namespace hotset::test {

inline constexpr int32_t kToyEos = 256;       // <|im_end|>, special
inline constexpr int32_t kToyStart = 257;     // <|im_start|>, special
inline constexpr int32_t kToyThinkEnd = 258;  // </think>, not special
inline constexpr int32_t kToyVocabSize = 259;

[[nodiscard]] Tokenizer make_toy_tokenizer();

// Ids of a text, which must tokenize.
[[nodiscard]] std::vector<int32_t> toy_ids(const Tokenizer& tokenizer, std::string_view text);

}  // namespace hotset::test
