// SPDX-License-Identifier: Apache-2.0
// A hash of short byte strings for the tables of this room. Tables that hold what a file says bound
// their probe length (kMaxProbes), so that a file made of collisions is refused instead of slow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace hotset {

// At half-full tables an honest file needs some dozens.
inline constexpr size_t kMaxProbes = 1024;

[[nodiscard]] inline uint64_t mix_hash(uint64_t word) {
  word *= 0x9fb21c651e98df25u;
  word ^= word >> 35;
  word *= 0xd6e8feb86659fd93u;
  return word ^ (word >> 32);
}

[[nodiscard]] inline uint64_t hash_bytes(std::string_view bytes) {
  const char* at = bytes.data();
  size_t left = bytes.size();
  uint64_t hash = mix_hash(left + 1);
  uint64_t word = 0;
  for (; left >= 8; left -= 8, at += 8) {
    std::memcpy(&word, at, 8);
    hash = mix_hash(hash ^ word);
  }
  word = 0;
  if (left >= 4) {
    uint32_t front = 0, back = 0;
    std::memcpy(&front, at, 4);
    std::memcpy(&back, at + left - 4, 4);
    word = (uint64_t{back} << 32) | front;
  } else {
    for (size_t i = 0; i < left; ++i) word |= uint64_t{static_cast<uint8_t>(at[i])} << (8 * i);
  }
  return mix_hash(hash ^ word);
}

}  // namespace hotset
