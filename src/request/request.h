// SPDX-License-Identifier: Apache-2.0
// What the text side hands to the engine: token ids and parameters, no text and no JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "request/sampling_params.h"

namespace hotset {

struct Request {
  std::string id;                   // made by the server, for logs; never chosen by the client
  std::vector<int32_t> prompt_ids;  // at least one
  SamplingParams params;            // already validated
};

}  // namespace hotset
