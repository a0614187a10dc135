// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/safetensors_writer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/checked_math.h"

namespace hotset {

Result<std::string> safetensors_header_bytes(const std::vector<SafetensorsWriter::Entry>& entries,
                                             const std::map<std::string, std::string>& metadata,
                                             int64_t* data_bytes) {
  int64_t offset = 0;
  std::string json = "{";
  if (!metadata.empty())
    json += fmt::format("\"__metadata__\":{},", nlohmann::json(metadata).dump());
  for (const SafetensorsWriter::Entry& entry : entries) {
    const auto numel = checked_numel(entry.shape);
    const auto bits = numel ? checked_mul(*numel, int64_t{dtype_bits(entry.dtype)}) : std::nullopt;
    if (!bits || *bits % 8 != 0)
      return fail(fmt::format("tensor '{}': impossible shape", entry.name));
    const int64_t end = offset + *bits / 8;
    json += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}},",
                        nlohmann::json(entry.name).dump(), dtype_name(entry.dtype),
                        fmt::join(entry.shape, ","), offset, end);
    offset = end;
  }
  if (json.back() == ',') json.pop_back();
  json += '}';
  json.resize(static_cast<size_t>(round_up(static_cast<int64_t>(json.size()), 8)), ' ');
  if (static_cast<int64_t>(json.size()) > kMaxSafetensorsHeaderBytes) {
    return fail("the header exceeds 100 MB: write more shards");
  }
  std::string out(8, '\0');
  for (size_t i = 0; i < 8; ++i)
    out[i] = static_cast<char>(static_cast<uint64_t>(json.size()) >> (8 * i));
  *data_bytes = offset;
  return out + json;
}

Result<SafetensorsWriter> SafetensorsWriter::create(
    const std::string& path, std::vector<Entry> entries,
    const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter writer;
  writer.path_ = path;
  HS_ASSIGN_OR_RETURN(const std::string header,
                      safetensors_header_bytes(entries, metadata, &writer.left_));
  writer.file_.reset(std::fopen(path.c_str(), "wb"));
  if (writer.file_ == nullptr)
    return fail(fmt::format("{}: cannot be created", path), ErrorKind::kResource);
  if (std::fwrite(header.data(), 1, header.size(), writer.file_.get()) != header.size()) {
    return fail(fmt::format("{}: the header could not be written", path), ErrorKind::kResource);
  }
  return writer;
}

Status SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (static_cast<int64_t>(bytes.size()) > left_) {
    return fail(fmt::format("{}: more bytes than its header declares", path_),
                ErrorKind::kInternal);
  }
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size()) {
    return fail(fmt::format("{}: could not be written; is the disk full?", path_),
                ErrorKind::kResource);
  }
  left_ -= static_cast<int64_t>(bytes.size());
  return {};
}

Status SafetensorsWriter::finish() {
  if (left_ != 0)
    return fail(fmt::format("{}: {} declared bytes are missing", path_, left_),
                ErrorKind::kInternal);
  if (std::fclose(file_.release()) != 0) {
    return fail(fmt::format("{}: could not be written; is the disk full?", path_),
                ErrorKind::kResource);
  }
  return {};
}

}  // namespace hotset
