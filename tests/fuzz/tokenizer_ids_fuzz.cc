// SPDX-License-Identifier: Apache-2.0
// Any ids into the incremental detokenizer: valid UTF-8 at every step, and the whole text at the
// end.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../tokenizer/small_tokenizer.h"
#include "base/check.h"
#include "base/utf8.h"
#include "tokenizer/detokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const hotset::Tokenizer tokenizer = hotset::testing::SmallTokenizer{}.load().value();
  if (size == 0) return 0;
  // The first byte chooses: ids of two bytes (near the vocabulary) or of four (anywhere).
  const size_t width = data[0] % 2 == 0 ? 2 : 4;
  const bool skip_special = data[0] % 4 >= 2;
  hotset::Detokenizer detokenizer(tokenizer, skip_special);
  std::vector<int32_t> ids;
  std::string streamed;
  for (size_t at = 1; at + width <= size; at += width) {
    uint32_t bits = 0;
    std::memcpy(&bits, data + at, width);
    ids.push_back(static_cast<int32_t>(width == 2 ? bits % 310 : bits));
    const std::string part = detokenizer.push(ids.back());
    HS_CHECK(hotset::utf8_is_valid(part), "a part isn't UTF-8");
    streamed += part;
  }
  streamed += detokenizer.finish();
  HS_CHECK(streamed == tokenizer.detokenize(ids, skip_special), "stream and whole differ");
  return 0;
}
