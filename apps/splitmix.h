// SPDX-License-Identifier: Apache-2.0
// splitmix64: one 64-bit number turned into another that looks unrelated. Public domain algorithm
// of Sebastiano Vigna; what synthetic checkpoints and texts draw from.
#pragma once

#include <cstdint>

namespace hotset {

inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace hotset
