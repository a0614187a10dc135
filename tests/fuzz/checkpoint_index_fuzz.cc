// SPDX-License-Identifier: Apache-2.0
// Any bytes as model.safetensors.index.json: shard names that stay in the folder, or a refusal.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "checkpoint/shard_index.h"
#include "memory/file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  const auto index = hotset::ShardIndex::parse(json, "fuzz");
  if (!index) {
    HS_CHECK(index.error().message.starts_with("fuzz: "), "{}", index.error().message);
    return 0;
  }
  for (const std::string& shard : index->shards) {
    HS_CHECK(hotset::is_plain_file_name(shard) && shard.ends_with(".safetensors"), "{}", shard);
  }
  for (const auto& [tensor, shard] : index->tensors) {
    HS_CHECK(shard < index->shards.size(), "'{}' in shard {}", tensor, shard);
  }
  return 0;
}
