// SPDX-License-Identifier: Apache-2.0
// The fields that /v1/chat/completions and /v1/completions share: how to choose tokens, when to
// stop, whether to stream. Fields whose meaning we can't honour are refused by name instead of
// being ignored, because ignoring them would change the answer.
#pragma once

#include "request/sampling_params.h"
#include "server/field_reader.h"

namespace hotset {

struct StreamOptions {
  bool stream = false;
  bool include_usage = false;
};

// Overwrites in `params` (the checkpoint's defaults) what the request names. logprobs are not read
// here: the two endpoints spell them differently.
void read_sampling_fields(FieldReader& fields, SamplingParams& params);

[[nodiscard]] StreamOptions read_stream_options(FieldReader& fields);

void refuse_unsupported_fields(FieldReader& fields);

}  // namespace hotset
