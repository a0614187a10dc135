// SPDX-License-Identifier: Apache-2.0
// The largest logits of one token, where all of them lie far away (on a GPU): nearly always enough
// to choose the next token from, and a fiftieth of the bytes.
#pragma once

#include <cstdint>
#include <vector>

namespace hotset {

struct LogitsHead {
  struct Entry {
    int32_t token = 0;
    float logit = 0;
  };
  std::vector<Entry> largest;  // in any order
  float cut = 0;               // no token that is not listed has a larger logit
  bool all_finite = true;      // listed or not
};

}  // namespace hotset
