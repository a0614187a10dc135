// SPDX-License-Identifier: Apache-2.0
// model.safetensors.index.json: which shard holds which tensor. Shard names are untrusted text and
// must be plain names of .safetensors files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace hotset {

inline constexpr int64_t kMaxIndexBytes = int64_t{256} << 20;
inline constexpr size_t kMaxShards = 10'000;

struct ShardIndex {
  std::vector<std::string> shards;                        // sorted, each once
  std::vector<std::pair<std::string, uint32_t>> tensors;  // name, index into shards
  std::optional<int64_t> total_size;                      // informative, sometimes wrong

  [[nodiscard]] static Result<ShardIndex> parse(std::string_view json, std::string_view file_name);
};

}  // namespace hotset
