// SPDX-License-Identifier: Apache-2.0
// A file that a flag names by its path, read whole under a limit and with memory/file's rules for
// what may be opened.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace hotset {

[[nodiscard]] Result<std::string> read_path(const std::string& path, int64_t max_bytes);

}  // namespace hotset
