// SPDX-License-Identifier: Apache-2.0
#include "experts/routing_profile.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>

#include "base/check.h"
#include "base/checked_math.h"
#include "checkpoint/json_file.h"
#include "experts/path_file.h"

namespace hotset {
namespace {

constexpr std::string_view kFormat = "hotset-routing-profile";
constexpr int64_t kMaxTokens = kMaxProfileTokens;

Result<int64_t> whole_number(const Json& object, const char* key, std::string_view name,
                             int64_t max) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_unsigned() ||
      found->get<uint64_t>() > static_cast<uint64_t>(max)) {
    return fail(fmt::format("{}: {} must be a whole number of at most {}", name, key, max));
  }
  return static_cast<int64_t>(found->get<uint64_t>());
}

Status file_error(const std::string& path, const char* what) {
  return fail(fmt::format("{}: {}: {}", path, what, std::strerror(errno)), ErrorKind::kResource);
}

// On the disk when it returns, where there is one.
Status write_whole(const std::string& path, const std::string& text) {
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return file_error(path, "can't be created");
  Status status;
  if (std::fwrite(text.data(), 1, text.size(), file) != text.size() || std::fflush(file) != 0 ||
      (::fsync(::fileno(file)) != 0 && errno != EINVAL)) {
    status = file_error(path, "can't be written");
  }
  if (std::fclose(file) != 0 && status) status = file_error(path, "can't be written");
  return status;
}

Status read_layer(const Json& row, const RoutingShape& shape, int64_t num_tokens,
                  std::vector<int64_t>& counts, const std::string& where) {
  if (!row.is_array() || row.size() != static_cast<size_t>(shape.num_experts)) {
    return fail(fmt::format("{} must be a list of {} numbers", where, shape.num_experts));
  }
  int64_t sum = 0;  // at most num_experts · kMaxTokens, which is below 2^64 / 2
  for (const Json& value : row) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(num_tokens)) {
      return fail(fmt::format("{}: a count must be a whole number of at most num_tokens = {}",
                              where, num_tokens));
    }
    counts.push_back(static_cast<int64_t>(value.get<uint64_t>()));
    const auto next = checked_add(sum, counts.back());
    if (!next) return fail(fmt::format("{}: the counts overflow", where));
    sum = *next;
  }
  if (sum != num_tokens * shape.top_k) {
    return fail(fmt::format("{}: the counts add up to {}, not to {} tokens · {}", where, sum,
                            num_tokens, shape.top_k));
  }
  return {};
}

}  // namespace

Result<RoutingProfile> RoutingProfile::create(const RoutingShape& shape) {
  HS_RETURN_IF_ERROR(check_routing_shape(shape, "routing profile"));
  RoutingProfile profile;
  profile.shape_ = shape;
  profile.counts_.assign(
      static_cast<size_t>(shape.num_layers) * static_cast<size_t>(shape.num_experts), 0);
  return profile;
}

Result<RoutingProfile> RoutingProfile::parse(std::string_view json, std::string_view name) {
  HS_ASSIGN_OR_RETURN(const Json root, parse_config_json(json, name));
  const auto format = root.find("format");
  if (format == root.end() || !format->is_string() || format->get<std::string>() != kFormat) {
    return fail(fmt::format("{}: \"format\" is not \"{}\"", name, kFormat));
  }
  HS_ASSIGN_OR_RETURN(const int64_t version, whole_number(root, "version", name, 1));
  if (version != 1) return fail(fmt::format("{}: version {} is unknown", name, version));
  HS_ASSIGN_OR_RETURN(const int64_t layers,
                      whole_number(root, "num_layers", name, kMaxRoutingLayers));
  HS_ASSIGN_OR_RETURN(const int64_t experts,
                      whole_number(root, "num_experts", name, kMaxRoutingExperts));
  HS_ASSIGN_OR_RETURN(const int64_t top_k, whole_number(root, "top_k", name, kMaxRoutingTopK));
  HS_ASSIGN_OR_RETURN(const int64_t tokens, whole_number(root, "num_tokens", name, kMaxTokens));
  RoutingProfile profile;
  profile.shape_ = {.num_layers = static_cast<int32_t>(layers),
                    .num_experts = static_cast<int32_t>(experts),
                    .top_k = static_cast<int32_t>(top_k)};
  profile.name_ = name;
  profile.num_tokens_ = tokens;
  HS_RETURN_IF_ERROR(check_routing_shape(profile.shape_, name));
  const auto counts = root.find("counts");
  if (counts == root.end() || !counts->is_array() ||
      counts->size() != static_cast<size_t>(layers)) {
    return fail(fmt::format("{}: counts must be a list of {} layers", name, layers));
  }
  for (size_t layer = 0; layer < counts->size(); ++layer) {
    HS_RETURN_IF_ERROR(read_layer((*counts)[layer], profile.shape_, tokens, profile.counts_,
                                  fmt::format("{}: counts[{}]", name, layer)));
  }
  return profile;
}

Result<RoutingProfile> RoutingProfile::load(const std::string& path) {
  HS_ASSIGN_OR_RETURN(const std::string json, read_path(path, kMaxConfigBytes));
  return parse(json, path);
}

Result<RoutingProfile> RoutingProfile::from_trace(const RoutingTrace& trace) {
  HS_ASSIGN_OR_RETURN(RoutingProfile profile, create(trace.shape()));
  for (int64_t step = 0; step < trace.num_steps(); ++step) {
    for (int32_t layer = 0; layer < profile.num_layers(); ++layer) {
      profile.add(layer, trace.ids(step, layer));
    }
  }
  profile.add_tokens(trace.num_steps());
  return profile;
}

void RoutingProfile::add(int32_t layer, std::span<const uint16_t> ids) {
  HS_CHECK(layer >= 0 && layer < shape_.num_layers, "layer {}", layer);
  int64_t* const counts = counts_.data() + int64_t{layer} * shape_.num_experts;
  for (const uint16_t id : ids) {
    HS_CHECK(id < shape_.num_experts, "expert {} of {}", id, shape_.num_experts);
    ++counts[id];
  }
}

Status RoutingProfile::merge(const RoutingProfile& other) {
  if (other.shape_ != shape_) {
    return fail(fmt::format("a routing profile of {} can't be added to one of {}",
                            to_text(other.shape_), to_text(shape_)));
  }
  if (other.num_tokens_ > kMaxTokens - num_tokens_) {
    return fail(fmt::format("{} and {} tokens are more than a routing profile counts", num_tokens_,
                            other.num_tokens_));
  }
  num_tokens_ += other.num_tokens_;
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  return {};
}

std::string RoutingProfile::to_json() const {
  std::string out = fmt::format(
      "{{\"format\": \"{}\", \"version\": 1, \"num_layers\": {}, \"num_experts\": {}, "
      "\"top_k\": {}, \"num_tokens\": {},\n\"counts\": [\n",
      kFormat, shape_.num_layers, shape_.num_experts, shape_.top_k, num_tokens_);
  for (int32_t layer = 0; layer < shape_.num_layers; ++layer) {
    const int64_t* const row = counts_.data() + int64_t{layer} * shape_.num_experts;
    out += fmt::format("[{}]{}\n", fmt::join(row, row + shape_.num_experts, ","),
                       layer + 1 < shape_.num_layers ? "," : "");
  }
  return out + "]}\n";
}

Status RoutingProfile::save(const std::string& path) const {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status there = fs::status(path, error);
  const std::string json = to_json();
  if (fs::exists(there) && !fs::is_regular_file(there)) {
    return write_whole(path, json);  // a pipe or a terminal; a directory can't be opened
  }
  std::string target = path;
  if (fs::exists(there)) {  // what a link leads to is replaced, not the link
    const fs::path resolved = fs::canonical(path, error);
    if (!error) target = resolved.string();
  }
  // A folder that takes no new files: in its place, then.
  const std::string folder = fs::path(target).parent_path().string();
  if (fs::exists(there) && ::access(folder.empty() ? "." : folder.c_str(), W_OK) != 0) {
    return write_whole(target, json);
  }
  const std::string part = fmt::format("{}.{}.part", target, ::getpid());
  Status status = write_whole(part, json);
  if (status) {
    if (fs::exists(there)) fs::permissions(part, there.permissions(), error);
    if (std::rename(part.c_str(), target.c_str()) == 0) return {};
    const bool is_mounted = errno == EBUSY || errno == EXDEV;  // by itself
    status = is_mounted ? write_whole(target, json) : file_error(path, "can't be replaced");
  }
  ::unlink(part.c_str());
  return status;
}

}  // namespace hotset
