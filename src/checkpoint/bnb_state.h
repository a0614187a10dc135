// SPDX-License-Identifier: Apache-2.0
// The JSON that bitsandbytes stores beside a 4-bit weight (X.weight.quant_state.bitsandbytes__nf4).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "checkpoint/checkpoint.h"

namespace hotset {

struct BnbState {
  std::string quant_type;  // nf4 or fp4
  int64_t blocksize = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t nested_blocksize = 0;  // 0: absmax is plain
  float nested_offset = 0;
};

// `tensor` names the tensor that holds the text, for messages.
[[nodiscard]] Result<BnbState> parse_bnb_state(std::string_view text, const std::string& tensor);
[[nodiscard]] Result<BnbState> read_bnb_state(const Checkpoint& checkpoint,
                                              const TensorInfo& state);

}  // namespace hotset
