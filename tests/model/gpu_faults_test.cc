// SPDX-License-Identifier: Apache-2.0
// What a GPU backend does when the CUDA runtime fails, call by call; no GPU is needed. A failure
// while it is made leaves nothing behind; a failure in a step ends that step, and the next one
// works.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/json_file.h"
#include "cuda/fake_runtime.h"
#include "model/gpu_backend.h"

namespace hotset {
namespace {

using testing::FakeRuntime;

constexpr int64_t kGpuBytes = int64_t{4} << 30;
const std::string kDirectory = "golden/models/gptq";

// A loaded model whose backend a test makes as often as it likes.
class GpuFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    auto checkpoint = Checkpoint::open(kDirectory);
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
  Result<std::unique_ptr<GpuBackend>> create(int64_t failing_call, int64_t max_slots = -1) {
    auto runtime = std::make_unique<FakeRuntime>(kGpuBytes, &num_leaked_);
    runtime_ = runtime.get();
    runtime->fail_call(failing_call);
    return GpuBackend::create(std::move(runtime), config_, rope_, pool_, weights(),
                              {.isa = cpu::detect_isa(),
                               .max_context = 256,
                               .prefill_chunk = 64,
                               .max_num_seqs = 2,
                               .max_slots = max_slots});
  }
  // Prefill of more tokens than are shared with the CPU, then two decode steps.
  static Status run(GpuBackend& backend, int num_decode_steps) {
    HS_ASSIGN_OR_RETURN(SequenceCache cache,
                        SequenceCache::create(backend.pages(), backend.states()));
    HS_RETURN_IF_ERROR(cache.reserve(64));
    std::vector<float> logits(static_cast<size_t>(1) << 16);
    const std::vector<int32_t> prompt(20, 3);
    const SequencePart first{&cache, prompt};
    HS_RETURN_IF_ERROR(backend.forward({&first, 1}, 1, logits.data()));
    for (int i = 0; i < num_decode_steps; ++i) {
      const SequencePart next{&cache, std::span(prompt).first(1)};
      HS_RETURN_IF_ERROR(backend.forward({&next, 1}, 1, logits.data()));
    }
    return {};
  }

  std::optional<Checkpoint> checkpoint_;
  std::optional<QuantConfig> quant_;
  ModelConfig config_;
  RopeTable rope_;
  cpu::WorkerPool pool_{1};
  FakeRuntime* runtime_ = nullptr;
  int64_t num_leaked_ = 0;
};

TEST_F(GpuFaults, EveryCallThatFailsWhileABackendIsMadeIsReported) {
  ASSERT_TRUE(create(-1));
  std::set<std::string> calls;
  for (int64_t n = 0;; ++n) {
    ASSERT_LT(n, 10000);
    auto backend = create(n);
    if (backend) break;  // fewer calls than n
    EXPECT_NE(backend.error().message.find("a failure for a test"), std::string::npos)
        << backend.error().message;
    calls.insert(backend.error().message);
    EXPECT_EQ(num_leaked_, 0) << backend.error().message;
  }
  EXPECT_GE(calls.size(), 7u) << "different calls";
}

TEST_F(GpuFaults, EveryCallThatFailsInAStepEndsThatStepOnly) {
  for (const int64_t max_slots : {int64_t{-1}, int64_t{0}}) {
    const int num_decode_steps = max_slots == 0 ? 0 : 2;  // no kernel here asks for its experts
    auto made = create(-1, max_slots);
    ASSERT_TRUE(made) << made.error().message;
    GpuBackend& backend = **made;
    ASSERT_TRUE(run(backend, num_decode_steps));
    int64_t num_failures = 0;
    for (int64_t n = 0;; ++n) {
      ASSERT_LT(n, 100000);
      runtime_->fail_call(n);
      const Status status = run(backend, num_decode_steps);
      if (runtime_->num_calls() <= n) break;
      runtime_->fail_call(-1);
      num_failures += status ? 0 : 1;
      if (status) {
        ADD_FAILURE() << "call " << n << ", " << runtime_->failed_call() << ", went unnoticed";
      }
      const Status next = run(backend, num_decode_steps);
      ASSERT_TRUE(next) << "after " << runtime_->failed_call() << ": " << next.error().message;
    }
    EXPECT_GT(num_failures, 50);
    EXPECT_TRUE(backend.pages().check_integrity());
  }
}

TEST_F(GpuFaults, ABudgetThatCannotHoldTheModelIsRefusedWithFigures) {
  auto runtime = std::make_unique<FakeRuntime>(int64_t{1} << 20);
  const auto backend = GpuBackend::create(
      std::move(runtime), config_, rope_, pool_, weights(),
      {.isa = cpu::detect_isa(), .max_context = 256, .prefill_chunk = 64, .max_num_seqs = 1});
  ASSERT_FALSE(backend);
  EXPECT_EQ(backend.error().kind, ErrorKind::kResource);
  for (const char* part : {"budget", "weights", "KV cache", "--max-model-len", "--device cpu"}) {
    EXPECT_NE(backend.error().message.find(part), std::string::npos) << backend.error().message;
  }
}

}  // namespace
}  // namespace hotset
