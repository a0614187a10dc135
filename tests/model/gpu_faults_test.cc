// SPDX-License-Identifier: Apache-2.0
// What a GPU backend does when the CUDA runtime fails, call by call; no GPU is needed. A failure
// while it is made leaves nothing behind; a failure in a step ends that step, and the next one
// works.
#include "model/gpu_faults.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace hotset {
namespace {

TEST_F(GpuFaults, EveryCallThatFailsWhileABackendIsMadeIsReported) {
  ASSERT_TRUE(create(-1));
  std::set<std::string> calls;
  for (int64_t n = 0;; ++n) {
    ASSERT_LT(n, 10000);
    auto backend = create(n);
    if (backend && runtime_->num_calls() <= n) break;
    if (backend) {  // RAM that can't be pinned is done without
      calls.insert(runtime_->failed_call());
      EXPECT_EQ(runtime_->failed_call(), "cudaHostRegister");
      EXPECT_EQ((*backend)->notes().size(), 1u);
      continue;
    }
    EXPECT_NE(backend.error().message.find("a failure for a test"), std::string::npos)
        << backend.error().message;
    calls.insert(backend.error().message);
    EXPECT_EQ(num_leaked_, 0) << backend.error().message;
  }
  EXPECT_GE(calls.size(), 7u) << "different calls";
}

TEST_F(GpuFaults, EveryCallThatFailsInAStepEndsThatStepOnly) {
  for (const int64_t max_slots : {int64_t{-1}, int64_t{0}}) {
    const int num_decode_steps = max_slots == 0 ? 0 : 2;  // shared: gpu_shared_faults_test.cc
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

// What is planned from headers is what is allocated, to the byte of every line.
TEST_F(GpuFaults, WhatIsPlannedIsWhatIsAllocated) {
  for (const int64_t max_slots : {int64_t{-1}, int64_t{100}, int64_t{0}}) {
    auto backend = create(-1, max_slots);
    ASSERT_TRUE(backend) << backend.error().message;
    const auto free = runtime_->free_bytes();
    ASSERT_TRUE(free);
    const Placement& plan = (*backend)->plan().placement;
    const int64_t promised = plan.gpu_bytes("CUDA") + plan.gpu_bytes("margin");
    const int64_t planned = plan.gpu_used_bytes - promised;
    const int64_t taken = kGpuBytes - *free;
    EXPECT_LE(taken, planned) << to_text(plan);
    EXPECT_LE(planned - taken, 256 << 10) << to_text(plan);  // tables that only misses need
    EXPECT_TRUE((*backend)->notes().empty());
  }
}

TEST_F(GpuFaults, AModelThatDoesNotFitIsRefusedWithFiguresBeforeItIsLoaded) {
  const auto plan = plan_for(options_with(-1), int64_t{1} << 30);
  ASSERT_TRUE(plan) << plan.error().message;
  const auto refused = plan_for(options_with(-1), int64_t{512} << 20);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kResource);
  for (const char* part : {"dense", "KV", "states", "workspace", "may be used", "512 MiB"}) {
    EXPECT_NE(refused.error().message.find(part), std::string::npos) << refused.error().message;
  }
  GpuBackendOptions options = options_with(-1);
  options.ram_bytes = int64_t{256} << 20;
  const auto short_of_ram = plan_for(options, kGpuBytes);
  ASSERT_FALSE(short_of_ram);
  EXPECT_NE(short_of_ram.error().message.find("raise --ram to"), std::string::npos)
      << short_of_ram.error().message;
}

TEST_F(GpuFaults, SlotsAreFilledByAProfile) {
  const auto residents = [&](int64_t max_slots) {
    auto made = create(-1, max_slots);
    EXPECT_TRUE(made) << made.error().message;
    const ExpertSlots& slots = (*made)->expert_slots();
    EXPECT_EQ(slots.num_slots(), max_slots);
    std::set<int64_t> found;
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      for (int64_t e = 0; e < config_.num_experts; ++e) {
        if (slots.is_resident(layer, e)) found.insert(100 * layer + e);
      }
    }
    if (profile_) {
      EXPECT_NEAR(slots.resident_share(*profile_), max_slots == 8 ? 7.0 / 8 : 0.5, 1e-9);
    }
    return found;
  };
  EXPECT_EQ(residents(4), (std::set<int64_t>{0, 100, 200, 300})) << "arbitrary ones";
  profile_.emplace(some_profile());
  EXPECT_EQ(residents(4), (std::set<int64_t>{5, 105, 205, 305}));
  EXPECT_EQ(residents(8), (std::set<int64_t>{2, 5, 102, 105, 202, 205, 302, 305}));
}

// Choices that stay on the GPU are copied behind each router; whether that fails or not, a step
// either is heard whole or ends in an error.
TEST_F(GpuFaults, RoutersAreHeardOnceAStepAndLayer) {
  for (const int64_t max_slots : {int64_t{-1}, int64_t{0}}) {
    auto made = create(-1, max_slots);
    ASSERT_TRUE(made) << made.error().message;
    GpuBackend& backend = **made;
    ASSERT_TRUE(run(backend, 2)) << "steps are recorded before";
    std::vector<int64_t> heard(static_cast<size_t>(config_.num_hidden_layers));
    const auto listen = [&] {
      return backend.listen_to_routing(
          [&](int64_t layer, std::span<const int32_t> experts, int32_t top_k) {
            EXPECT_EQ(top_k, config_.num_experts_per_tok + 1);
            heard[static_cast<size_t>(layer)] += std::ssize(experts) / top_k;
          });
    };
    runtime_->fail_call(0);
    EXPECT_FALSE(listen()) << "no memory for them";
    runtime_->fail_call(-1);
    ASSERT_TRUE(listen());
    const int num_steps = 2;
    for (int64_t round = 1; round <= 3; ++round) {
      ASSERT_TRUE(run(backend, num_steps));
      for (const int64_t tokens : heard) EXPECT_EQ(tokens, round * (20 + num_steps));
    }
    const std::vector<int64_t> before = heard;
    runtime_->fail_call(12);
    EXPECT_FALSE(run(backend, 0));
    EXPECT_EQ(heard, before) << "a step that failed";
    runtime_->fail_call(-1);
    ASSERT_TRUE(backend.listen_to_routing(nullptr));
    ASSERT_TRUE(run(backend, num_steps));
    EXPECT_EQ(heard, before) << "nobody listens any more";
    made->reset();
    EXPECT_EQ(num_leaked_, 0);
  }
}

// Where RAM can't be pinned everything still works, and says so once.
TEST_F(GpuFaults, RefusedPinningIsSaidAndSurvived) {
  for (const int64_t max_slots : {int64_t{-1}, int64_t{0}}) {
    auto made = create(-1, max_slots, /*pins=*/false);
    ASSERT_TRUE(made) << made.error().message;
    ASSERT_EQ((*made)->notes().size(), 1u);
    EXPECT_NE((*made)->notes()[0].find("cudaHostRegister: not permitted"), std::string::npos);
    EXPECT_NE((*made)->notes()[0].find("ulimit -l"), std::string::npos);
    EXPECT_TRUE(run(**made, 2));
    made->reset();
    EXPECT_EQ(num_leaked_, 0);
  }
}

TEST_F(GpuFaults, NoStepAllocatesOnTheGpu) {
  for (const int64_t max_slots : {int64_t{-1}, int64_t{100}, int64_t{0}}) {
    auto made = create(-1, max_slots);
    ASSERT_TRUE(made) << made.error().message;
    const int64_t before = runtime_->num_allocations();
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(run(**made, 4));
    EXPECT_EQ(runtime_->num_allocations(), before) << max_slots << " slots at most";
  }
}

// After that the first step of several sequences records nothing any more.
TEST_F(GpuFaults, BatchesAreMadeReadyBeforehandOrThatFails) {
  for (const int64_t max_slots : {int64_t{-1}, int64_t{0}}) {
    auto made = create(-1, max_slots);
    ASSERT_TRUE(made) << made.error().message;
    GpuBackend& backend = **made;
    int64_t num_failures = 0;
    for (int64_t n = 0;; ++n) {
      ASSERT_LT(n, 100000);
      runtime_->fail_call(n);
      const Status status = backend.prepare_batches(2);
      if (runtime_->num_calls() <= n) break;
      num_failures += status ? 0 : 1;
    }
    EXPECT_GT(num_failures, 50);
    runtime_->fail_call(-1);
    ASSERT_TRUE(backend.prepare_batches(2)) << "after all these failures";
    const int64_t num_graphs = runtime_->num_graphs_made();
    ASSERT_TRUE(backend.prepare_batches(2));
    EXPECT_EQ(runtime_->num_graphs_made(), num_graphs) << "recorded a second time";
    ASSERT_TRUE(run_together(backend, 2));
    EXPECT_EQ(runtime_->num_graphs_made(), num_graphs);
  }
}

// Steps with marks between their stages, and logits that are picked on the device.
TEST_F(GpuFaults, EveryCallThatFailsInATimedStepEndsThatStepOnly) {
  auto made = create(-1);
  ASSERT_TRUE(made) << made.error().message;
  GpuBackend& backend = **made;
  StageClock clock;
  backend.set_clock(&clock);
  const auto timed = [&]() -> Status {
    HS_RETURN_IF_ERROR(run(backend, 2));
    LogitsHead head;
    HS_RETURN_IF_ERROR(backend.read_heads(config_.vocab_size, {&head, 1}));
    std::vector<float> logits(static_cast<size_t>(config_.vocab_size));
    return backend.read_logits(0, logits.data());
  };
  int64_t num_failures = 0;
  for (int64_t n = 0;; ++n) {
    ASSERT_LT(n, 100000);
    runtime_->fail_call(n);
    const Status status = timed();
    if (runtime_->num_calls() <= n) break;
    runtime_->fail_call(-1);
    num_failures += status ? 0 : 1;
    EXPECT_FALSE(status) << "call " << n << ", " << runtime_->failed_call() << ", went unnoticed";
    const Status next = timed();
    ASSERT_TRUE(next) << "after " << runtime_->failed_call() << ": " << next.error().message;
  }
  EXPECT_GT(num_failures, 50);
  EXPECT_GT(clock[Stage::kExperts].calls, 0);
  made->reset();
  EXPECT_EQ(num_leaked_, 0);
}

}  // namespace
}  // namespace hotset
