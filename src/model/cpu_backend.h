// SPDX-License-Identifier: Apache-2.0
// The whole model on the CPU: weights and caches in host memory, one pool of threads.
#pragma once

#include <memory>

#include "kernels/cpu/queue.h"
#include "kernels/rope.h"
#include "model/backend.h"
#include "model/forward.h"
#include "model/weights.h"
#include "model/workspace.h"

namespace hotset {

struct CpuBackendOptions {
  cpu::Isa isa = cpu::Isa::kScalar;
  Arithmetic arithmetic = Arithmetic::kFast;
  KvType kv_type = KvType::kBF16;
  int64_t max_context = 0;
  int64_t prefill_chunk = 0;
  int64_t max_num_seqs = 0;
  int64_t num_pages = 0;
};

class CpuBackend final : public Backend {
 public:
  // `config` and `rope` outlive the backend.
  static Result<std::unique_ptr<CpuBackend>> create(const ModelConfig& config,
                                                    const RopeTable& rope, cpu::WorkerPool& pool,
                                                    std::unique_ptr<ModelWeights> weights,
                                                    const CpuBackendOptions& options);

  [[nodiscard]] PagePool& pages() override { return pages_; }
  [[nodiscard]] StatePool& states() override { return states_; }
  [[nodiscard]] int64_t max_logits() const override { return workspace_.shape.max_chunk; }
  Status forward(std::span<const SequencePart> parts, int64_t num_logits, float* logits) override;
  [[nodiscard]] bool has_mtp() const override { return weights_->mtp != nullptr; }
  Status forward_mtp(const SequencePart& part, int64_t num_logits, float* logits) override;
  void set_clock(StageClock* clock) override { context_.clock = clock; }
  Status listen_to_routing(RoutingListener listener) override {
    experts_.listen(std::move(listener));
    return {};
  }

 private:
  CpuBackend(const ModelConfig& config, const RopeTable& rope, cpu::WorkerPool& pool,
             std::unique_ptr<ModelWeights> weights, const CpuBackendOptions& options,
             PagePool pages, StatePool states);
  void reserve_scratch(const ModelConfig& config, const CpuBackendOptions& options);

  std::unique_ptr<ModelWeights> weights_;
  PagePool pages_;
  StatePool states_;
  cpu::Queue queue_;
  Workspace workspace_;
  ExpertsRunner<cpu::Queue> experts_;
  std::vector<SequenceRows> rows_;
  std::vector<int32_t> ids_;
  ForwardContext<cpu::Queue> context_;
};

}  // namespace hotset
