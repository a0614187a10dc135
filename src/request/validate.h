// SPDX-License-Identifier: Apache-2.0
// The one validator of requests. It says which field is wrong, what it was and which limit it
// broke, so that the server can name the field apart from the sentence.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "request/sampling_params.h"

namespace hotset {

struct FieldError {
  std::string field;
  std::string message;  // a whole sentence, naming field, value and limit
};

// One number against its row of the limits table; NaN and infinities are refused.
[[nodiscard]] std::optional<FieldError> check_number(std::string_view field, double value);

// Every field of `params`. Token ids must lie in [0, num_valid_tokens).
[[nodiscard]] std::optional<FieldError> check_params(const SamplingParams& params,
                                                     int64_t num_valid_tokens);

// The same as a Status, for callers that need no field apart.
[[nodiscard]] Status validate(const SamplingParams& params, int64_t num_valid_tokens);

}  // namespace hotset
