// SPDX-License-Identifier: Apache-2.0
// What the checkpoint itself recommends: generation_config.json gives the sampling defaults, and
// the end-of-text ids are the union of those named there and in config.json (releases differ in
// which file has the complete list).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "request/sampling_params.h"

namespace hotset {

struct GenerationDefaults {
  SamplingParams params;         // fields the file leaves out keep their neutral value
  std::vector<int32_t> eos_ids;  // ascending, distinct
};

// Either text may be empty (the file is missing). Keys we have no use for are ignored; a key we
// use with a wrong type or a value beyond the limits is an error that names file and key.
[[nodiscard]] Result<GenerationDefaults> parse_generation_defaults(
    std::string_view generation_config_json, std::string_view config_json);

}  // namespace hotset
