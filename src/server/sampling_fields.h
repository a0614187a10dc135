// SPDX-License-Identifier: Apache-2.0
// The fields that /v1/chat/completions and /v1/completions share: how to choose tokens, when to
// stop, whether to stream. Fields whose meaning we can't honour are refused by name instead of
// being ignored, because ignoring them would change the answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "request/sampling_params.h"
#include "server/field_reader.h"

namespace hotset {

struct StreamOptions {
  bool stream = false;
  bool include_usage = false;
};

struct CommonRequest {
  std::string model;  // empty: not named
  SamplingParams params;
  size_t num_choices = 1;
  StreamOptions stream;
};

// Overwrites in `request` (whose params are the checkpoint's defaults) what the client names.
// logprobs are not read here: the two endpoints spell them differently.
void read_common_fields(FieldReader& fields, CommonRequest& request);

// The first thing wrong: with the fields, or with the params they came to.
[[nodiscard]] ApiResult<void> check_common(const FieldReader& fields, const CommonRequest& request,
                                           int64_t num_valid_tokens);

}  // namespace hotset
