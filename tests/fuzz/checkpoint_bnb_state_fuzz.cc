// SPDX-License-Identifier: Apache-2.0
// Any bytes as the quant state of a bitsandbytes weight: refused by the tensor's name, or block
// sizes that can be divided by.
#include <cmath>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "checkpoint/bnb_state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto state = hotset::parse_bnb_state(text, "fuzz");
  if (!state) {
    HS_CHECK(state.error().message.starts_with("tensor 'fuzz': "), "{}", state.error().message);
    return 0;
  }
  HS_CHECK(state->blocksize > 0 && state->nested_blocksize >= 0, "{} {}", state->blocksize,
           state->nested_blocksize);
  HS_CHECK(std::isfinite(state->nested_offset), "{}", state->nested_offset);
  return 0;
}
