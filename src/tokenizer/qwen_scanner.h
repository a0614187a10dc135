// SPDX-License-Identifier: Apache-2.0
// The split pattern of Qwen2 … Qwen3-Next written by hand: linear in the text whatever the text is,
// and several times as fast as a regex. Other patterns go through split_regex.h.
#pragma once

#include <cstddef>
#include <string_view>

#include "tokenizer/char_class.h"

namespace hotset {

// The pattern that this scanner is equal to.
inline constexpr std::string_view kQwenPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The end of the piece that begins at `at` < text.size(). `text` is valid UTF-8.
[[nodiscard]] size_t qwen_piece_end(std::string_view text, size_t at, const CharClasses& classes);

}  // namespace hotset
