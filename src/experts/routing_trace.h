// SPDX-License-Identifier: Apache-2.0
// Recorded routing: which experts each layer chose, step by step of one sequence, in a compact
// file. What the expert cache should do is decided on such files (bench/expert_cache_sim), not by
// guess.
//
// The file, little-endian:
//   bytes 0…7    "HSROUTE1"
//   bytes 8…23   uint32 num_layers, num_experts, top_k, 0
//   then         uint16 [num_steps, num_layers, top_k]: distinct ids < num_experts
// The number of steps follows from the size. 48 layers of top-10: 960 bytes a step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

struct RoutingShape {
  int32_t num_layers = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;

  [[nodiscard]] int64_t ids_per_step() const { return int64_t{num_layers} * top_k; }
  friend bool operator==(const RoutingShape&, const RoutingShape&) = default;
};
[[nodiscard]] std::string to_text(const RoutingShape& shape);  // "48 layers of 512 experts, …"

inline constexpr int32_t kMaxRoutingLayers = 1024;
inline constexpr int32_t kMaxRoutingExperts = 16384;
inline constexpr int32_t kMaxRoutingTopK = 256;
inline constexpr int64_t kMaxRoutingTraceBytes = int64_t{2} << 30;

// Refuses numbers out of range; `name` is for messages.
[[nodiscard]] Status check_routing_shape(const RoutingShape& shape, std::string_view name);

class RoutingTrace {
 public:
  // The bytes of a file; every id is checked. `name` is for messages.
  [[nodiscard]] static Result<RoutingTrace> parse(std::span<const std::byte> bytes,
                                                  std::string_view name);
  [[nodiscard]] static Result<RoutingTrace> load(const std::string& path);
  // ids: [num_steps, num_layers, top_k], checked like a file's.
  [[nodiscard]] static Result<RoutingTrace> from_ids(const RoutingShape& shape,
                                                     std::vector<uint16_t> ids,
                                                     std::string_view name);

  [[nodiscard]] const RoutingShape& shape() const { return shape_; }
  [[nodiscard]] int64_t num_steps() const {
    return static_cast<int64_t>(ids_.size()) / shape_.ids_per_step();
  }
  // [top_k]
  [[nodiscard]] std::span<const uint16_t> ids(int64_t step, int32_t layer) const {
    const int64_t at = (step * shape_.num_layers + layer) * shape_.top_k;
    return {ids_.data() + at, static_cast<size_t>(shape_.top_k)};
  }

 private:
  RoutingShape shape_;
  std::vector<uint16_t> ids_;  // [num_steps, num_layers, top_k]
};

// Writes whole steps, so that a file is readable even when its writer ended early.
class RoutingTraceWriter {
 public:
  [[nodiscard]] static Result<RoutingTraceWriter> create(const std::string& path,
                                                         const RoutingShape& shape);
  // ids: [num_layers, top_k] of one step.
  [[nodiscard]] Status add_step(std::span<const uint16_t> ids);
  [[nodiscard]] Status finish();

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  RoutingTraceWriter() = default;

  std::string path_;
  RoutingShape shape_;
  std::unique_ptr<std::FILE, Closer> file_;
  std::vector<char> record_;  // one step
};

}  // namespace hotset
