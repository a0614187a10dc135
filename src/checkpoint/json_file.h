// SPDX-License-Identifier: Apache-2.0
// Small JSON files of a model directory (config.json and its like), made safe before they are
// parsed: at most 16 MiB, at most 64 levels, valid UTF-8, no duplicate keys. Keys keep their order.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"
#include "memory/file.h"

namespace hotset {

using Json = nlohmann::ordered_json;

inline constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;
inline constexpr int kMaxConfigDepth = 64;

// `file_name` is for messages. The top level must be an object.
[[nodiscard]] Result<Json> parse_config_json(std::string_view text, std::string_view file_name);
// kNotFound when the file is not there.
[[nodiscard]] Result<Json> read_json_file(const Directory& dir, std::string_view name);

}  // namespace hotset
