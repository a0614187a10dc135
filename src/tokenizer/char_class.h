// SPDX-License-Identifier: Apache-2.0
// What a split pattern asks of a character: letter (\p{L}), number (\p{N}), white space (\s) or
// other, as Unicode 16 has it. One table of classes, built once per tokenizer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hotset {

enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace };

class CharClasses {
 public:
  CharClasses();

  [[nodiscard]] CharClass of(char32_t c) const {
    return blocks_[block_of_[c / kBlockSize]][c % kBlockSize];
  }

 private:
  static constexpr size_t kBlockSize = 256;
  using Block = std::array<CharClass, kBlockSize>;

  std::array<uint16_t, 0x110000 / kBlockSize> block_of_{};
  std::vector<Block> blocks_;  // equal blocks are stored once
};

}  // namespace hotset
