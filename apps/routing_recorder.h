// SPDX-License-Identifier: Apache-2.0
// Listens to a model's routers: how often each expert was chosen and, where that is wanted, all
// choices in their order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "experts/routing_profile.h"
#include "model/config.h"
#include "model/language_model.h"
#include "routing_replay.h"

namespace hotset {

class RoutingRecorder {
 public:
  enum class Keeps : uint8_t { kCounts, kChoices };

  // From the model's next step on; the recorder outlives the model's steps. It is written on the
  // thread that computes: read it between steps.
  [[nodiscard]] static Result<std::unique_ptr<RoutingRecorder>> start(LanguageModel& model,
                                                                      Keeps keeps);

  [[nodiscard]] const RoutingProfile& profile() const { return profile_; }
  // Numbers in the model of the layers that have experts: what a row of the profile is about.
  [[nodiscard]] const std::vector<int64_t>& layers() const { return layers_; }
  // REQUIRES: choices are kept. A view into this.
  [[nodiscard]] RecordedRouting recorded() const {
    return {.shape = profile_.shape(), .choices = choices_, .expert_bytes = expert_bytes_};
  }

 private:
  RoutingRecorder(const ModelConfig& config, RoutingProfile profile, Keeps keeps);
  void hear(int64_t layer, std::span<const int32_t> experts);

  const Keeps keeps_;
  RoutingProfile profile_;
  std::vector<int64_t> layers_;
  std::vector<int32_t> row_of_;                 // [num_hidden_layers]: −1: without experts
  std::vector<std::vector<uint16_t>> choices_;  // [layers], each [num_tokens, top_k]
  int64_t expert_bytes_ = 1;
  std::vector<uint16_t> ids_;  // of the step
};

}  // namespace hotset
