// SPDX-License-Identifier: Apache-2.0
// An arena of bytes with an open-addressing index.
#include "tokenizer/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "base/utf8.h"
#include "tokenizer/byte_hash.h"

namespace hotset {
namespace {

// Printable Latin-1 stands for itself, the 68 other bytes for U+0100 … U+0143 in ascending order.
constexpr bool is_spelled_as_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr std::array<uint16_t, 256> make_char_of_byte() {
  std::array<uint16_t, 256> table{};
  uint16_t next = 0x100;
  for (size_t byte = 0; byte < 256; ++byte) {
    const bool itself = is_spelled_as_itself(static_cast<int>(byte));
    table[byte] = itself ? static_cast<uint16_t>(byte) : next++;
  }
  return table;
}

constexpr std::array<uint16_t, 256> kCharOfByte = make_char_of_byte();

constexpr std::array<int16_t, 0x144> make_byte_of_char() {
  std::array<int16_t, 0x144> table{};
  table.fill(-1);
  for (size_t byte = 0; byte < 256; ++byte) table[kCharOfByte[byte]] = static_cast<int16_t>(byte);
  return table;
}

constexpr std::array<int16_t, 0x144> kByteOfChar = make_byte_of_char();

}  // namespace

bool append_spelled_bytes(std::string_view spelled, std::string& out) {
  for (size_t i = 0; i < spelled.size(); ++i) {
    uint32_t c = static_cast<uint8_t>(spelled[i]);
    if (c >= 0x80) {
      if (c < 0xc2 || c > 0xc5 || i + 1 == spelled.size()) return false;
      c = ((c & 0x1fu) << 6) | (static_cast<uint8_t>(spelled[++i]) & 0x3fu);
    }
    if (c >= kByteOfChar.size() || kByteOfChar[c] < 0) return false;
    out.push_back(static_cast<char>(kByteOfChar[c]));
  }
  return true;
}

void append_spelling(uint8_t byte, std::string& out) {
  utf8_append(out, kCharOfByte[byte]);
}

Vocabulary::Vocabulary(int32_t max_id, size_t tokens, size_t total_bytes)
    : spans_(static_cast<size_t>(max_id) + 1),
      slots_(std::bit_ceil(2 * std::max(tokens, size_t{8}))) {
  arena_.reserve(total_bytes);
}

Status Vocabulary::add(int32_t id, std::string_view bytes, bool is_searchable) {
  Span& span = spans_[index(id)];
  if (span.used) return fail(fmt::format("two tokens have id {}", id));
  if (arena_.size() + bytes.size() > UINT32_MAX) return fail("the tokens are larger than 4 GiB");
  if (is_searchable) {
    const uint64_t hash = hash_bytes(bytes);
    const auto tag = static_cast<uint32_t>(hash >> 32);
    size_t at = hash & (slots_.size() - 1);
    for (size_t probes = 0; slots_[at].id >= 0; ++probes) {
      if (slots_[at].tag == tag && this->bytes(slots_[at].id) == bytes) {
        return fail(fmt::format("ids {} and {} are the same token", slots_[at].id, id));
      }
      if (probes == kMaxProbes) return fail("the tokens are chosen to collide in a hash table");
      at = (at + 1) & (slots_.size() - 1);
    }
    slots_[at] = {tag, id};
  }
  span = {static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(bytes.size()) & 0x7fffffffu,
          1};
  arena_ += bytes;
  longest_bytes_ = std::max(longest_bytes_, bytes.size());
  return {};
}

std::optional<int32_t> Vocabulary::find(std::string_view bytes) const {
  const uint64_t hash = hash_bytes(bytes);
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t at = hash & (slots_.size() - 1); slots_[at].id >= 0;
       at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].tag == tag && this->bytes(slots_[at].id) == bytes) return slots_[at].id;
  }
  return std::nullopt;
}

}  // namespace hotset
