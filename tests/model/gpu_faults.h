// SPDX-License-Identifier: Apache-2.0
// A tiny model on a GPU that is not there, for tests of what a backend does when calls fail.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/json_file.h"
#include "cuda/fake_exchange.h"
#include "cuda/fake_runtime.h"
#include "experts/routing_profile.h"
#include "model/calibrate.h"
#include "model/gpu_backend.h"
#include "model/gpu_plan.h"
#include "model/model_plan.h"

namespace hotset {

// A loaded model whose backend a test makes as often as it likes.
class GpuFaults : public ::testing::Test {
 protected:
  static constexpr int64_t kGpuBytes = int64_t{4} << 30;
  // Shared with the CPU, or computed by the GPU alone: where all experts are resident.
  struct Steps {
    int64_t prompt = 20;
    int num_decode = 2;
  };

  void SetUp() override {
    auto checkpoint = Checkpoint::open("golden/models/gptq");
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    checkpoint_.emplace(std::move(*checkpoint));
    auto json = read_json_file(checkpoint_->directory(), "config.json");
    ASSERT_TRUE(json);
    auto config = parse_model_config(*json, "config.json");
    ASSERT_TRUE(config) << config.error().message;
    config_ = std::move(*config);
    auto quant = QuantConfig::load(checkpoint_->directory(), *json);
    ASSERT_TRUE(quant);
    quant_.emplace(std::move(*quant));
    rope_ = make_rope_table({.rotary_dims = config_.rotary_dim()});
  }
  [[nodiscard]] std::unique_ptr<ModelWeights> weights() {
    auto plan = plan_weights(*checkpoint_, *quant_, config_, {});
    EXPECT_TRUE(plan);
    auto weights = load_weights(*checkpoint_, std::move(*plan), {}, {}, nullptr);
    EXPECT_TRUE(weights);
    return std::move(*weights);
  }
  // Keeps a view of the runtime, which the backend owns.
  Result<std::unique_ptr<GpuBackend>> create(int64_t failing_call, int64_t max_slots = -1,
                                             bool pins = true,
                                             ErrorKind kind = ErrorKind::kInternal) {
    auto runtime = std::make_unique<testing::FakeRuntime>(kGpuBytes, &num_leaked_);
    runtime_ = runtime.get();
    if (!pins) runtime->refuse_to_pin();
    auto exchange = std::make_shared<testing::FakeExchange>(
        static_cast<int32_t>(config_.num_experts),
        static_cast<int32_t>(config_.num_experts_per_tok + 1));
    exchange_ = exchange.get();
    runtime->play_kernels(
        [exchange](const cuda::Launch& launch) { return exchange->play(launch); });
    const GpuBackendOptions options = options_with(max_slots);
    HS_ASSIGN_OR_RETURN(const GpuPlan plan, plan_for(options, kGpuBytes));
    if (kind == ErrorKind::kDeviceLost) {
      runtime->fail_from_call(failing_call, kind);
    } else {
      runtime->fail_call(failing_call, kind);
    }
    return GpuBackend::create(std::move(runtime), config_, rope_, pool_, weights(), options, plan);
  }
  Result<GpuPlan> plan_for(const GpuBackendOptions& options, int64_t gpu_bytes) {
    auto weight_plan = plan_weights(*checkpoint_, *quant_, config_, {});
    EXPECT_TRUE(weight_plan);
    const GpuForm form = gpu_form(config_, *weight_plan, 16, options, 8);
    return plan_gpu(config_, {&form, 1}, options,
                    {.num_sms = 8,
                     .gpu_free_bytes = gpu_bytes,
                     .ram_available_bytes = int64_t{64} << 30,
                     .rates = typical_rates()});
  }
  [[nodiscard]] GpuBackendOptions options_with(int64_t max_slots) const {
    return {.isa = cpu::detect_isa(),
            .max_context = max_context_,
            .prefill_chunk = prefill_chunk_,
            .max_num_seqs = 2,
            .max_slots = max_slots,
            .fetch_share = fetch_share_,
            .expert_profile = profile_ ? &*profile_ : nullptr};
  }
  // One in which each layer chose experts 5, 2 and 4, in this order of frequency.
  [[nodiscard]] RoutingProfile some_profile() const {
    auto profile = RoutingProfile::create(routing_shape(config_));
    EXPECT_TRUE(profile) << profile.error().message;
    for (int32_t layer = 0; layer < profile->num_layers(); ++layer) {
      for (const uint16_t other : std::vector<uint16_t>{2, 2, 2, 4}) {
        profile->add(layer, std::vector<uint16_t>{5, other});
      }
    }
    profile->add_tokens(4);
    return std::move(*profile);
  }
  // A prompt, then decode steps, of one sequence.
  static Status run(GpuBackend& backend, Steps steps) {
    HS_ASSIGN_OR_RETURN(SequenceCache cache,
                        SequenceCache::create(backend.pages(), backend.states()));
    HS_RETURN_IF_ERROR(cache.reserve(steps.prompt + steps.num_decode));
    std::vector<float> logits(static_cast<size_t>(1) << 16);
    const std::vector<int32_t> prompt(static_cast<size_t>(steps.prompt), 3);
    const SequencePart first{&cache, prompt};
    HS_RETURN_IF_ERROR(backend.forward({&first, 1}, 1, logits.data()));
    for (int i = 0; i < steps.num_decode; ++i) {
      const SequencePart next{&cache, std::span(prompt).first(1)};
      HS_RETURN_IF_ERROR(backend.forward({&next, 1}, 1, logits.data()));
    }
    return {};
  }
  // Decode steps of two sequences that begin, together.
  Status run_together(GpuBackend& backend, int num_decode) const {
    std::vector<SequenceCache> caches;
    std::vector<SequencePart> parts;
    const std::vector<int32_t> id = {3};
    for (int i = 0; i < 2; ++i) {
      HS_ASSIGN_OR_RETURN(SequenceCache cache,
                          SequenceCache::create(backend.pages(), backend.states()));
      HS_RETURN_IF_ERROR(cache.reserve(8));
      caches.push_back(std::move(cache));
    }
    for (SequenceCache& cache : caches) parts.push_back({&cache, id});
    std::vector<float> logits(static_cast<size_t>(2 * config_.vocab_size));
    for (int step = 0; step < num_decode; ++step) {
      HS_RETURN_IF_ERROR(backend.forward(parts, 2, logits.data()));
    }
    return {};
  }
  // As many decode steps after the usual prompt.
  static Status run(GpuBackend& backend, int num_decode) {
    return run(backend, Steps{.num_decode = num_decode});
  }

  std::optional<Checkpoint> checkpoint_;
  std::optional<QuantConfig> quant_;
  ModelConfig config_;
  RopeTable rope_;
  std::optional<RoutingProfile> profile_;
  double fetch_share_ = -1;
  int64_t prefill_chunk_ = 64;
  int64_t max_context_ = 256;
  cpu::WorkerPool pool_{1};
  testing::FakeRuntime* runtime_ = nullptr;
  testing::FakeExchange* exchange_ = nullptr;
  int64_t num_leaked_ = 0;
};

}  // namespace hotset
