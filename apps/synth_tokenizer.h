// SPDX-License-Identifier: Apache-2.0
// A stand-in tokenizer for synthetic checkpoints: a token for each byte, made-up words up to the
// special tokens, and these where the published vocabulary has them. Text is cut into bytes only,
// so a prompt has more tokens than with the true one; every id that a model samples says something.
#pragma once

#include <cstdint>
#include <string>

namespace hotset {

inline constexpr const char* kStandInTokenizer =
    "a stand-in tokenizer: 256 bytes, made-up words and the special tokens";

// <|endoftext|>; <|im_end|> comes two later. In a small vocabulary the special tokens are the last.
[[nodiscard]] int64_t first_special_token(int64_t vocab_size);

// REQUIRES: a vocabulary of 512 at least.
[[nodiscard]] std::string stand_in_tokenizer_json(int64_t vocab_size);
[[nodiscard]] std::string stand_in_tokenizer_config_json();
// Turns between <|im_start|> and <|im_end|>, nothing else.
[[nodiscard]] std::string stand_in_chat_template();

}  // namespace hotset
