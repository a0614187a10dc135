// SPDX-License-Identifier: Apache-2.0
// simdjson for the text (tens of megabytes for a quantised model, any depth without recursion of
// ours); two passes over weight_map: shard names first, so that tensors can refer to sorted shards.
#include "checkpoint/shard_index.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "base/utf8.h"
#include "memory/file.h"

namespace hotset {
namespace {

Status check_shard_name(std::string_view file_name, std::string_view shard) {
  if (utf8_is_valid(shard) && is_plain_file_name(shard) && shard.ends_with(".safetensors")) {
    return {};
  }
  return fail(fmt::format("{}: weight_map: '{}' is not the plain name of a .safetensors file",
                          file_name, utf8_replace_invalid(shard.substr(0, 200))));
}

Result<std::vector<std::string>> shard_names(const simdjson::dom::object& weight_map,
                                             std::string_view file_name) {
  std::unordered_set<std::string_view> seen;
  for (const auto& [tensor, value] : weight_map) {
    std::string_view shard;
    if (value.get(shard) != simdjson::SUCCESS) {
      return fail(fmt::format("{}: weight_map: '{}' is not mapped to a file name", file_name,
                              utf8_replace_invalid(std::string_view(tensor).substr(0, 200))));
    }
    if (!seen.insert(shard).second) continue;
    HS_RETURN_IF_ERROR(check_shard_name(file_name, shard));
    if (seen.size() > kMaxShards) {
      return fail(fmt::format("{}: weight_map: more than {} shards", file_name, kMaxShards));
    }
  }
  std::vector<std::string> names(seen.begin(), seen.end());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

Result<ShardIndex> ShardIndex::parse(std::string_view json, std::string_view file_name) {
  if (json.empty()) return fail(fmt::format("{}: empty", file_name));
  simdjson::dom::parser parser;
  simdjson::dom::object root;
  const auto error = parser.parse(json.data(), json.size()).get(root);
  if (error != simdjson::SUCCESS) {
    return fail(fmt::format("{}: {}", file_name, simdjson::error_message(error)));
  }
  simdjson::dom::object weight_map;
  int num_maps = 0;
  for (const auto& [key, value] : root) {
    if (std::string_view(key) == "weight_map") num_maps += 1;
  }
  if (num_maps != 1 || root["weight_map"].get(weight_map) != simdjson::SUCCESS) {
    return fail(fmt::format("{}: weight_map: {}", file_name,
                            num_maps > 1 ? "given twice" : "missing, or not an object"));
  }
  ShardIndex index;
  HS_ASSIGN_OR_RETURN(index.shards, shard_names(weight_map, file_name));
  if (index.shards.empty()) return fail(fmt::format("{}: weight_map: empty", file_name));
  std::unordered_map<std::string_view, uint32_t> number;
  for (uint32_t i = 0; i < index.shards.size(); ++i) number[index.shards[i]] = i;

  std::unordered_set<std::string_view> seen;
  seen.reserve(weight_map.size());
  index.tensors.reserve(weight_map.size());
  for (const auto& [key, value] : weight_map) {
    const std::string_view tensor = key;
    std::string_view shard;
    if (value.get(shard) != simdjson::SUCCESS) continue;  // refused by shard_names
    if (!seen.insert(tensor).second) {
      return fail(fmt::format("{}: weight_map: tensor '{}' is given twice", file_name,
                              utf8_replace_invalid(tensor.substr(0, 200))));
    }
    index.tensors.emplace_back(tensor, number[shard]);
  }
  int64_t total = 0;
  if (root.at_pointer("/metadata/total_size").get(total) == simdjson::SUCCESS) {
    index.total_size = total;
  }
  return index;
}

}  // namespace hotset
