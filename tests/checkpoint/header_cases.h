// SPDX-License-Identifier: Apache-2.0
// Handmade safetensors files, most of them broken in one way, each with a name that says how. The
// same list feeds the test and the tool that asks the reference reader (tools/checkpoint).
#pragma once

#include <string>
#include <vector>

namespace hotset {

struct HeaderCase {
  std::string name;
  std::string file;  // the whole file: prefix, header, data
};

[[nodiscard]] std::vector<HeaderCase> header_cases();

}  // namespace hotset
