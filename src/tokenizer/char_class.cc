// SPDX-License-Identifier: Apache-2.0
// Categories come from ICU. The system's ICU may be older than Unicode 16, which the regex engine
// of Hugging Face `tokenizers` has: letters and numbers added since Unicode 15.0 are listed here,
// and used where ICU calls them unassigned.
#include "tokenizer/char_class.h"

#include <unicode/uchar.h>

#include <algorithm>

namespace hotset {
namespace {

struct Range {
  char32_t first, last;
  CharClass kind;
};

constexpr auto kLetter = CharClass::kLetter;
constexpr auto kNumber = CharClass::kNumber;
constexpr std::array kSinceUnicode15 = {
    Range{0x1c89, 0x1c8a, kLetter},   Range{0xa7cb, 0xa7cd, kLetter},
    Range{0xa7da, 0xa7dc, kLetter},   Range{0x105c0, 0x105f3, kLetter},
    Range{0x10d40, 0x10d49, kNumber}, Range{0x10d4a, 0x10d65, kLetter},
    Range{0x10d6f, 0x10d85, kLetter}, Range{0x10ec2, 0x10ec4, kLetter},
    Range{0x11380, 0x11389, kLetter}, Range{0x1138b, 0x1138b, kLetter},
    Range{0x1138e, 0x1138e, kLetter}, Range{0x11390, 0x113b5, kLetter},
    Range{0x113b7, 0x113b7, kLetter}, Range{0x113d1, 0x113d1, kLetter},
    Range{0x113d3, 0x113d3, kLetter}, Range{0x116d0, 0x116e3, kNumber},
    Range{0x11bc0, 0x11be0, kLetter}, Range{0x11bf0, 0x11bf9, kNumber},
    Range{0x13460, 0x143fa, kLetter}, Range{0x16100, 0x1611d, kLetter},
    Range{0x16130, 0x16139, kNumber}, Range{0x16d40, 0x16d6c, kLetter},
    Range{0x16d70, 0x16d79, kNumber}, Range{0x18cff, 0x18cff, kLetter},
    Range{0x1ccf0, 0x1ccf9, kNumber}, Range{0x1e5d0, 0x1e5ed, kLetter},
    Range{0x1e5f0, 0x1e5f0, kLetter}, Range{0x1e5f1, 0x1e5fa, kNumber},
    Range{0x2ebf0, 0x2ee5d, kLetter},
};

using Table = std::vector<CharClass>;

UBool add_category(const void* context, UChar32 start, UChar32 limit, UCharCategory category) {
  auto& table = *static_cast<Table*>(const_cast<void*>(context));
  const uint32_t mask = U_MASK(static_cast<uint32_t>(category));
  auto kind = CharClass::kOther;
  if ((mask & U_GC_L_MASK) != 0) kind = CharClass::kLetter;
  if ((mask & U_GC_N_MASK) != 0) kind = CharClass::kNumber;
  std::fill(table.begin() + start, table.begin() + limit, kind);
  return true;
}

Table flat_table() {
  Table table(0x110000, CharClass::kOther);
  u_enumCharTypes(add_category, &table);
  for (const Range& range : kSinceUnicode15) {
    for (char32_t c = range.first; c <= range.last; ++c) {
      if (u_charType(static_cast<UChar32>(c)) == U_UNASSIGNED) table[c] = range.kind;
    }
  }
  for (char32_t c = 0; c <= 0x3000; ++c) {  // U+3000 is the last white space
    if (u_isUWhiteSpace(static_cast<UChar32>(c))) table[c] = CharClass::kSpace;
  }
  return table;
}

}  // namespace

CharClasses::CharClasses() {
  const Table table = flat_table();
  for (size_t i = 0; i < block_of_.size(); ++i) {
    Block block;
    std::copy_n(table.begin() + static_cast<std::ptrdiff_t>(i * kBlockSize), kBlockSize,
                block.begin());
    const auto same = std::find(blocks_.begin(), blocks_.end(), block);
    block_of_[i] = static_cast<uint16_t>(same - blocks_.begin());
    if (same == blocks_.end()) blocks_.push_back(block);
  }
}

}  // namespace hotset
