// SPDX-License-Identifier: Apache-2.0
// A GPU that refuses, after the plan was made, what the plan takes: the CPU computes where that was
// left open, and a plan that has to change is the one that is told. No GPU is needed.
#include <gmock/gmock.h>

#include "gpu_faults.h"
#include "model/language_model.h"
#include "model/model_plan.h"

namespace hotset {
namespace {

using ::testing::HasSubstr;

class GpuRefusals : public GpuFaults {
 protected:
  // Of a GPU whose n-th call after the plan fails.
  Result<ModelPlan> plan_with_failing_call(Device device, int64_t n, ErrorKind kind) {
    ModelOptions options{.device = device, .gpu_memory_bytes = kGpuBytes, .max_model_len = 128};
    options.isa = cpu::detect_isa();
    options.max_num_seqs = 2;
    HS_ASSIGN_OR_RETURN(ModelPlan plan, plan_model("golden/models/gptq", options, true));
    auto runtime = std::make_unique<testing::FakeRuntime>(kGpuBytes, &num_leaked_);
    runtime->fail_call(n, kind);
    plan.gpu_name = runtime->info().name;
    plan.runtime = std::move(runtime);
    return plan;
  }
};

TEST_F(GpuRefusals, TheCpuComputesWhereAutoChoseAGpuThatFailsAfterThePlan) {
  for (const int64_t n : {0, 2, 4}) {
    auto plan = plan_with_failing_call(Device::kAuto, n, ErrorKind::kResource);
    ASSERT_TRUE(plan) << plan.error().message;
    const auto model = LanguageModel::load(std::move(*plan), {});
    ASSERT_TRUE(model) << model.error().message;
    EXPECT_EQ((*model)->gpu_backend(), nullptr);
    EXPECT_EQ((*model)->options().device, Device::kCpu);
    EXPECT_TRUE((*model)->placement().gpu.empty());
    EXPECT_THAT((*model)->device_text(), HasSubstr("(no GPU: a fake GPU: "));
    EXPECT_THAT((*model)->notes(), ::testing::Contains(HasSubstr("the CPU computes")));
    EXPECT_EQ(num_leaked_, 0);
    const auto sequence = (*model)->new_sequence(4);
    ASSERT_TRUE(sequence);
    std::vector<float> logits(static_cast<size_t>((*model)->vocab_size()));
    EXPECT_TRUE((*model)->extend(**sequence, std::vector<int32_t>{1, 2, 3}, logits));
  }
}

TEST_F(GpuRefusals, AGpuThatWasAskedForOrIsLostIsNotReplaced) {
  auto asked = plan_with_failing_call(Device::kCuda, 2, ErrorKind::kResource);
  ASSERT_TRUE(asked) << asked.error().message;
  EXPECT_FALSE(LanguageModel::load(std::move(*asked), {}));
  auto lost = plan_with_failing_call(Device::kAuto, 2, ErrorKind::kDeviceLost);
  ASSERT_TRUE(lost) << lost.error().message;
  const auto model = LanguageModel::load(std::move(*lost), {});
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().kind, ErrorKind::kDeviceLost);
}

// As many slots as can just be lent to a prefill; the embedding table takes some of them away, and
// the prefill gets slots of its own.
TEST_F(GpuRefusals, AChangedPlanIsTheOneThatIsToldAndAllocated) {
  const auto lending = slot_needs(*weights()).lending_slots;
  const GpuBackendOptions options = options_with(lending);
  const auto roomy = plan_for(options, kGpuBytes);
  ASSERT_TRUE(roomy) << roomy.error().message;
  const int64_t tight_bytes = roomy->placement.gpu_used_bytes;
  const auto plan = plan_for(options, tight_bytes);
  ASSERT_TRUE(plan) << plan.error().message;
  ASSERT_EQ(plan->placement.num_slots, lending);
  auto runtime = std::make_unique<testing::FakeRuntime>(kGpuBytes, &num_leaked_);
  runtime->refuse_to_pin();
  testing::FakeRuntime& view = *runtime;
  const auto made =
      GpuBackend::create(std::move(runtime), config_, rope_, pool_, weights(), options, *plan);
  ASSERT_TRUE(made) << made.error().message;
  const Placement& told = (*made)->plan().placement;
  int64_t sum = 0;
  for (const PlacementLine& line : told.gpu) sum += line.bytes;
  EXPECT_EQ(sum, told.gpu_used_bytes) << to_text(told);
  EXPECT_LE(sum, tight_bytes) << to_text(told);
  EXPECT_GT(told.gpu_bytes("dense"), plan->placement.gpu_bytes("dense"));
  EXPECT_GT(told.gpu_bytes("prefill staging"), 0) << to_text(told);
  EXPECT_LT(told.num_slots, lending);
  EXPECT_EQ(told.num_slots, (*made)->expert_slots().num_slots());
  EXPECT_LT(told.expected_hit_rate, plan->placement.expected_hit_rate);
  const int64_t promised = told.gpu_bytes("CUDA") + told.gpu_bytes("margin");
  EXPECT_LE(kGpuBytes - *view.free_bytes(), sum - promised) << to_text(told);
}

TEST_F(GpuRefusals, APlanThatCanNotChangeIsRefusedWithFiguresAndFlags) {
  GpuBackendOptions options = options_with(1);
  const auto roomy = plan_for(options, kGpuBytes);
  ASSERT_TRUE(roomy) << roomy.error().message;
  options.gpu_memory_bytes = roomy->placement.gpu_used_bytes;
  const auto plan = plan_for(options, kGpuBytes);
  ASSERT_TRUE(plan) << plan.error().message;
  auto runtime = std::make_unique<testing::FakeRuntime>(kGpuBytes, &num_leaked_);
  runtime->refuse_to_pin();
  const auto made =
      GpuBackend::create(std::move(runtime), config_, rope_, pool_, weights(), options, *plan);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("can't be pinned"));
  EXPECT_THAT(made.error().message, HasSubstr("raise --gpu-memory to"));
  EXPECT_EQ(num_leaked_, 0);
}

}  // namespace
}  // namespace hotset
