// SPDX-License-Identifier: Apache-2.0
#include "model/experts_runner.h"

#include <vector>

namespace hotset {

void ExpertsRunner<cpu::Queue>::run(cpu::Queue& queue, int64_t layer, const LayerWeights& weights,
                                    const MoeBatch& batch, float* y) {
  if (listener_) {
    const auto count = static_cast<size_t>(batch.num_tokens * batch.top_k);
    listener_(layer, {batch.expert_ids, count}, batch.top_k);
  }
  moe_experts(queue, weights.experts, batch, y);
}

int64_t ExpertsRunner<cpu::Queue>::chosen_bytes(const LayerWeights& weights,
                                                const MoeBatch& batch) const {
  std::vector<bool> seen(weights.experts.size());
  int64_t bytes = 0;
  for (int64_t i = 0; i < batch.num_tokens * batch.top_k; ++i) {
    const auto id = static_cast<size_t>(batch.expert_ids[i]);
    if (seen[id]) continue;
    seen[id] = true;
    const ExpertView& expert = weights.experts[id];
    bytes += expert.gate.bytes() + expert.up.bytes() + expert.down.bytes();
  }
  return bytes;
}

}  // namespace hotset
