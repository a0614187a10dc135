// SPDX-License-Identifier: Apache-2.0
#include "experts/routing_trace.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <utility>

#include "experts/path_file.h"

namespace hotset {
namespace {

constexpr std::string_view kMagic = "HSROUTE1";
constexpr size_t kHeaderBytes = 24;

uint32_t read_u32(const std::byte* at) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | std::to_integer<uint32_t>(at[i]);
  return value;
}

void write_u32(char* at, uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<char>(value >> (8 * i));
}

Result<RoutingShape> parse_header(std::span<const std::byte> bytes, std::string_view name) {
  if (bytes.size() < kHeaderBytes || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return fail(fmt::format("{}: not a routing trace of version 1", name));
  }
  std::array<uint32_t, 4> fields{};
  for (size_t i = 0; i < fields.size(); ++i) fields[i] = read_u32(bytes.data() + 8 + 4 * i);
  for (const uint32_t field : fields) {
    if (field > uint32_t{kMaxRoutingExperts}) {
      return fail(fmt::format("{}: {} is no number of layers or experts", name, field));
    }
  }
  if (fields[3] != 0) return fail(fmt::format("{}: written by a newer version", name));
  const RoutingShape shape = {.num_layers = static_cast<int32_t>(fields[0]),
                              .num_experts = static_cast<int32_t>(fields[1]),
                              .top_k = static_cast<int32_t>(fields[2])};
  HS_RETURN_IF_ERROR(check_routing_shape(shape, name));
  return shape;
}

// The index of the first id that is out of range or repeats within its layer, else -1.
int64_t first_bad_id(const std::vector<uint16_t>& ids, const RoutingShape& shape) {
  std::vector<int64_t> seen(static_cast<size_t>(shape.num_experts), -1);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto record = static_cast<int64_t>(i) / shape.top_k;
    if (ids[i] >= shape.num_experts || seen[ids[i]] == record) return static_cast<int64_t>(i);
    seen[ids[i]] = record;
  }
  return -1;
}

}  // namespace

std::string to_text(const RoutingShape& shape) {
  return fmt::format("{} layers of {} experts, {} a token", shape.num_layers, shape.num_experts,
                     shape.top_k);
}

Status check_routing_shape(const RoutingShape& shape, std::string_view name) {
  if (shape.num_layers < 1 || shape.num_layers > kMaxRoutingLayers || shape.num_experts < 1 ||
      shape.num_experts > kMaxRoutingExperts || shape.top_k < 1 || shape.top_k > kMaxRoutingTopK ||
      shape.top_k > shape.num_experts) {
    return fail(fmt::format("{}: {} layers, {} experts, top {}: out of range", name,
                            shape.num_layers, shape.num_experts, shape.top_k));
  }
  return {};
}

Result<RoutingTrace> RoutingTrace::parse(std::span<const std::byte> bytes, std::string_view name) {
  HS_ASSIGN_OR_RETURN(const RoutingShape shape, parse_header(bytes, name));
  const std::span<const std::byte> body = bytes.subspan(kHeaderBytes);
  const auto step_bytes = static_cast<size_t>(2 * shape.ids_per_step());
  if (body.size() % step_bytes != 0) {
    return fail(fmt::format("{}: {} bytes past step {}: cut or damaged", name,
                            body.size() % step_bytes, body.size() / step_bytes));
  }
  std::vector<uint16_t> ids(body.size() / 2);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<uint16_t>(std::to_integer<unsigned>(body[2 * i]) |
                                   std::to_integer<unsigned>(body[2 * i + 1]) << 8);
  }
  return from_ids(shape, std::move(ids), name);
}

Result<RoutingTrace> RoutingTrace::from_ids(const RoutingShape& shape, std::vector<uint16_t> ids,
                                            std::string_view name) {
  HS_RETURN_IF_ERROR(check_routing_shape(shape, name));
  const int64_t per_step = shape.ids_per_step();
  if (static_cast<int64_t>(ids.size()) % per_step != 0) {
    return fail(fmt::format("{}: {} ids are no whole steps of {}", name, ids.size(), per_step));
  }
  if (const int64_t bad = first_bad_id(ids, shape); bad >= 0) {
    return fail(fmt::format("{}: step {} layer {}: expert {} of {} is out of range or repeated",
                            name, bad / per_step, bad % per_step / shape.top_k,
                            ids[static_cast<size_t>(bad)], shape.num_experts));
  }
  RoutingTrace trace;
  trace.shape_ = shape;
  trace.ids_ = std::move(ids);
  return trace;
}

Result<RoutingTrace> RoutingTrace::load(const std::string& path) {
  HS_ASSIGN_OR_RETURN(const std::string bytes, read_path(path, kMaxRoutingTraceBytes));
  return parse(std::as_bytes(std::span(bytes.data(), bytes.size())), path);
}

Result<RoutingTraceWriter> RoutingTraceWriter::create(const std::string& path,
                                                      const RoutingShape& shape) {
  HS_RETURN_IF_ERROR(check_routing_shape(shape, path));
  RoutingTraceWriter writer;
  writer.path_ = path;
  writer.shape_ = shape;
  writer.record_.resize(static_cast<size_t>(2 * shape.ids_per_step()));
  writer.file_.reset(std::fopen(path.c_str(), "wb"));
  if (writer.file_ == nullptr) {
    return fail(fmt::format("{}: cannot be created", path), ErrorKind::kResource);
  }
  std::array<char, kHeaderBytes> header{};
  std::memcpy(header.data(), kMagic.data(), kMagic.size());
  write_u32(header.data() + 8, static_cast<uint32_t>(shape.num_layers));
  write_u32(header.data() + 12, static_cast<uint32_t>(shape.num_experts));
  write_u32(header.data() + 16, static_cast<uint32_t>(shape.top_k));
  if (std::fwrite(header.data(), 1, header.size(), writer.file_.get()) != header.size()) {
    return fail(fmt::format("{}: could not be written", path), ErrorKind::kResource);
  }
  return writer;
}

Status RoutingTraceWriter::add_step(std::span<const uint16_t> ids) {
  if (file_ == nullptr || static_cast<int64_t>(ids.size()) != shape_.ids_per_step()) {
    return fail(
        fmt::format("{}: a step has {} ids, not {}", path_, shape_.ids_per_step(), ids.size()),
        ErrorKind::kInternal);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= shape_.num_experts) {
      return fail(fmt::format("{}: no expert {}", path_, ids[i]), ErrorKind::kInternal);
    }
    record_[2 * i] = static_cast<char>(ids[i] & 0xff);
    record_[2 * i + 1] = static_cast<char>(ids[i] >> 8);
  }
  if (std::fwrite(record_.data(), 1, record_.size(), file_.get()) != record_.size()) {
    return fail(fmt::format("{}: could not be written; is the disk full?", path_),
                ErrorKind::kResource);
  }
  return {};
}

Status RoutingTraceWriter::finish() {
  if (file_ == nullptr || std::fclose(file_.release()) != 0) {
    return fail(fmt::format("{}: could not be written; is the disk full?", path_),
                ErrorKind::kResource);
  }
  return {};
}

}  // namespace hotset
