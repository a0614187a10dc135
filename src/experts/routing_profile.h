// SPDX-License-Identifier: Apache-2.0
// How often each layer chose each expert: the seed of the expert cache (--expert-profile FILE),
// written by the verb `profile` and by --save-expert-profile. Only layers that have experts count.
// A JSON file:
//   {"format": "hotset-routing-profile", "version": 1, "num_layers": L, "num_experts": E,
//    "top_k": K, "num_tokens": N, "counts": [[E numbers] … L of them]}
// A layer's counts are at most N each and add up to N · K.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "experts/routing_trace.h"

namespace hotset {

inline constexpr int64_t kMaxProfileTokens = int64_t{1} << 48;  // times top_k still fits

class RoutingProfile {
 public:
  [[nodiscard]] static Result<RoutingProfile> create(const RoutingShape& shape);
  [[nodiscard]] static Result<RoutingProfile> parse(std::string_view json, std::string_view name);
  [[nodiscard]] static Result<RoutingProfile> load(const std::string& path);
  [[nodiscard]] static Result<RoutingProfile> from_trace(const RoutingTrace& trace);

  // Counts one layer's ids, [num_tokens, top_k]. Call add_tokens once a step, whatever the layers.
  void add(int32_t layer, std::span<const uint16_t> ids);
  void add_tokens(int64_t num_tokens) { num_tokens_ += num_tokens; }
  // Counts add up. `other` is of the same shape, or nothing changes.
  [[nodiscard]] Status merge(const RoutingProfile& other);

  // Where it was read from; empty: it was counted.
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] int32_t num_layers() const { return shape_.num_layers; }
  [[nodiscard]] int32_t num_experts() const { return shape_.num_experts; }
  [[nodiscard]] const RoutingShape& shape() const { return shape_; }
  [[nodiscard]] int64_t num_tokens() const { return num_tokens_; }
  [[nodiscard]] int64_t count(int32_t layer, int32_t expert) const {
    return counts_[static_cast<size_t>(layer) * static_cast<size_t>(shape_.num_experts) +
                   static_cast<size_t>(expert)];
  }
  // That a token chooses the expert; 0 when nothing was recorded.
  [[nodiscard]] double probability(int32_t layer, int32_t expert) const {
    return num_tokens_ > 0
               ? static_cast<double>(count(layer, expert)) / static_cast<double>(num_tokens_)
               : 0.0;
  }

  [[nodiscard]] std::string to_json() const;
  // A file of that name is replaced, with its mode kept, once the new one is complete; where its
  // folder or mount does not allow that, it is overwritten.
  [[nodiscard]] Status save(const std::string& path) const;

 private:
  std::string name_;
  RoutingShape shape_;
  int64_t num_tokens_ = 0;
  std::vector<int64_t> counts_;  // [num_layers, num_experts]
};

}  // namespace hotset
