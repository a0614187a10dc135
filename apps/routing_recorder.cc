// SPDX-License-Identifier: Apache-2.0
#include "routing_recorder.h"

#include <algorithm>
#include <utility>

#include "model/model_plan.h"

namespace hotset {
namespace {

// On average.
int64_t expert_bytes(const LanguageModel& model, const RoutingShape& shape) {
  const int64_t count = int64_t{shape.num_layers} * shape.num_experts;
  for (const PlacementLine& line : model.placement().ram) {
    if (line.name == "experts") return std::max<int64_t>(1, line.bytes / count);
  }
  return 1;
}

}  // namespace

Result<std::unique_ptr<RoutingRecorder>> RoutingRecorder::start(LanguageModel& model, Keeps keeps) {
  HS_ASSIGN_OR_RETURN(RoutingProfile profile,
                      RoutingProfile::create(routing_shape(model.config())));
  std::unique_ptr<RoutingRecorder> recorder(
      new RoutingRecorder(model.config(), std::move(profile), keeps));
  recorder->expert_bytes_ = expert_bytes(model, recorder->profile_.shape());
  RoutingRecorder* const heard_by = recorder.get();
  HS_RETURN_IF_ERROR(
      model.listen_to_routing([heard_by](int64_t layer, std::span<const int32_t> experts,
                                         int32_t /*top_k*/) { heard_by->hear(layer, experts); }));
  return recorder;
}

RoutingRecorder::RoutingRecorder(const ModelConfig& config, RoutingProfile profile, Keeps keeps)
    : keeps_(keeps), profile_(std::move(profile)) {
  for (size_t layer = 0; layer < config.layer_is_moe.size(); ++layer) {
    const bool is_moe = config.layer_is_moe[layer];
    row_of_.push_back(is_moe ? static_cast<int32_t>(layers_.size()) : -1);
    if (is_moe) layers_.push_back(static_cast<int64_t>(layer));
  }
  if (keeps_ == Keeps::kChoices) choices_.resize(layers_.size());
}

// Shared experts are not routed.
void RoutingRecorder::hear(int64_t layer, std::span<const int32_t> experts) {
  const bool is_known = std::cmp_less(layer, row_of_.size());
  const int32_t row = is_known ? row_of_[static_cast<size_t>(layer)] : -1;
  if (row < 0) return;
  ids_.clear();
  for (const int32_t expert : experts) {
    if (expert < profile_.num_experts()) ids_.push_back(static_cast<uint16_t>(expert));
  }
  profile_.add(row, ids_);
  if (row == 0) profile_.add_tokens(std::ssize(ids_) / profile_.shape().top_k);
  if (keeps_ == Keeps::kCounts) return;
  std::vector<uint16_t>& kept = choices_[static_cast<size_t>(row)];
  kept.insert(kept.end(), ids_.begin(), ids_.end());
}

}  // namespace hotset
