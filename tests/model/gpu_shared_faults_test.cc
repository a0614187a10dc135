// SPDX-License-Identifier: Apache-2.0
// As gpu_faults_test.cc, for steps that the GPU shares with the CPU: decode steps with missing
// experts (served, fetched, inserted), long prompts whose experts are streamed, a lost device, and
// the calibration at start.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/gpu_faults.h"

namespace hotset {
namespace {

using testing::FakeRuntime;

// 24 routed experts, in as many slots: none; some, with staging memory of their own; nearly all,
// which a prompt borrows.
constexpr int64_t kSlots[] = {0, 8, 20};

class SharedSteps : public GpuFaults {
 protected:
  // Every `stride`-th call fails in turn, in steps that are recorded anew each time; the steps
  // after it work.
  void fail_calls(GpuBackend& backend, Steps steps, int64_t stride, std::set<std::string>& failed) {
    for (int64_t n = 0;; n += stride) {
      ASSERT_LT(n, 100000);
      ASSERT_TRUE(backend.listen_to_routing(nullptr)) << "what was recorded is forgotten";
      runtime_->fail_call(n);
      const Status status = run(backend, steps);
      if (runtime_->num_calls() <= n) break;
      runtime_->fail_call(-1);
      ASSERT_FALSE(status) << "call " << n << ", " << runtime_->failed_call() << ", went unnoticed";
      EXPECT_NE(status.error().message.find("a failure for a test"), std::string::npos)
          << status.error().message;
      failed.insert(runtime_->failed_call());
      const Status next = run(backend, {.prompt = 1, .num_decode = 0});
      ASSERT_TRUE(next) << "after call " << n << ", " << runtime_->failed_call() << ": "
                        << next.error().message;
    }
  }
};

TEST_F(SharedSteps, AreServedFetchedAndChangeTheSlots) {
  constexpr int kSteps = 24;
  for (const auto& [slots, share] : std::vector<std::pair<int64_t, double>>{
           {0, -1}, {0, 1}, {8, 0}, {8, 0.5}, {8, -1}, {20, 0}, {20, 1}}) {
    fetch_share_ = share;
    auto made = create(-1, slots);
    ASSERT_TRUE(made) << made.error().message;
    GpuBackend& backend = **made;
    const Status status = run(backend, kSteps);
    ASSERT_TRUE(status) << status.error().message;
    const GpuExpertsCounts counts = backend.expert_counts();
    constexpr int64_t kChoices = kSteps * 4 * 2;  // of four layers, two a token
    EXPECT_EQ(counts.steps, kSteps);
    EXPECT_EQ(exchange_->num_hand_overs(), kSteps * 4);
    EXPECT_EQ(counts.misses, exchange_->num_cpu());
    EXPECT_EQ(counts.fetched, exchange_->num_fetched()) << "one token chooses no expert twice";
    EXPECT_TRUE(share != 1 || counts.misses == 0);
    EXPECT_TRUE(share != 0 || counts.fetched == 0);
    if (slots == 0) {
      EXPECT_EQ(counts.missed(), kChoices);
      continue;
    }
    EXPECT_EQ(counts.choices, kChoices);
    EXPECT_LT(counts.missed(), counts.choices) << "some were in slots";
    EXPECT_GT(backend.cache_counts()->committed, slots);
    EXPECT_GT(backend.cache_counts()->evicted, 0);
  }
}

TEST_F(SharedSteps, EveryCallThatFailsEndsThatStepOnly) {
  for (const int64_t slots : kSlots) {
    fetch_share_ = slots == 8 ? 0.5 : 0;
    auto made = create(-1, slots);
    ASSERT_TRUE(made) << made.error().message;
    std::set<std::string> failed;
    fail_calls(**made, {.prompt = 2, .num_decode = 1}, slots == 8 ? 1 : 5, failed);
    fail_calls(**made, {.prompt = 18, .num_decode = 0}, slots == 8 ? 1 : 5, failed);
    if (slots == 8) {
      for (const char* call : {"hand_over_kernel", "fetch_kernel", "cudaStreamBeginCapture",
                               "cudaStreamEndCapture", "cudaGraphLaunch", "cudaStreamSynchronize",
                               "cudaMemcpyAsync", "fetch_rows_kernel", "cudaEventSynchronize"}) {
        EXPECT_TRUE(failed.contains(call)) << call << " never failed";
      }
    }
    EXPECT_TRUE((*made)->pages().check_integrity());
    made->reset();
    EXPECT_EQ(num_leaked_, 0);
  }
}

// `serve -c 8`: prompts of more tokens than a piece has come in pieces.
TEST_F(SharedSteps, AShortContextIsMadeReadyToItsLength) {
  prefill_chunk_ = 8;
  auto made = create(-1, 8);
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_TRUE((*made)->prepare_batches(2));
  EXPECT_EQ(runtime_->num_graphs_made() % (2 + 7), 0);
}

// Once all is made ready that serving needs, nothing is recorded or allocated any more: prompts of
// all lengths, decode of one and of several, with shares of fetched experts that are tried.
TEST_F(SharedSteps, ServingRecordsNothingThatWasNotMadeReady) {
  for (const int64_t slots : {int64_t{-1}, int64_t{0}, int64_t{8}, int64_t{20}}) {
    for (const double share : {-1.0, 0.5}) {
      fetch_share_ = share;
      auto made = create(-1, slots);
      ASSERT_TRUE(made) << made.error().message;
      GpuBackend& backend = **made;
      ASSERT_TRUE(backend.prepare_batches(2));
      const int64_t num_graphs = runtime_->num_graphs_made();
      const int64_t num_allocations = runtime_->num_allocations();
      // One and two sequences, prompts of 2 to 16 tokens, the latter with two shares where it is
      // learnt.
      EXPECT_EQ(num_graphs, slots < 0 ? 2 : (2 + 15) * (share < 0 ? 2 : 1));
      for (const int64_t prompt : {1, 2, 3, 9, 16, 17}) {
        const Status status = run(backend, {.prompt = prompt, .num_decode = 2});
        ASSERT_TRUE(status) << status.error().message;
      }
      ASSERT_TRUE(run_together(backend, 1));
      EXPECT_EQ(runtime_->num_graphs_made(), num_graphs) << slots << " slots, share " << share;
      EXPECT_EQ(runtime_->num_allocations(), num_allocations);
    }
  }
}

// Copies of experts that begin after a step, and the table that tells of them before the next one.
TEST_F(SharedSteps, InsertionsThatFailAreCalledOff) {
  auto made = create(-1, 8);
  ASSERT_TRUE(made) << made.error().message;
  GpuBackend& backend = **made;
  ASSERT_TRUE(run(backend, 1));
  for (const char* call : {"cudaEventQuery", "apply_address_changes_kernel", "cudaEventRecord"}) {
    const SlotCacheCounts before = *backend.cache_counts();
    runtime_->fail_next(call);
    const Status status = run(backend, {.prompt = 1, .num_decode = 40});
    ASSERT_FALSE(status) << call << " was not called, or went unnoticed";
    EXPECT_NE(status.error().message.find(call), std::string::npos) << status.error().message;
    const Status next = run(backend, {.prompt = 1, .num_decode = 14});
    ASSERT_TRUE(next) << "after " << call << ": " << next.error().message;
    const SlotCacheCounts& after = *backend.cache_counts();
    EXPECT_GT(after.committed, before.committed);
    EXPECT_TRUE(std::string_view(call) != "cudaEventRecord" || after.aborted > before.aborted);
  }
  // The device's table is the host's again: what it has is not asked of the CPU.
  for (int64_t layer = 0; layer < 4; ++layer) {
    const cuda::ExpertTable table = backend.expert_slots().table(layer);
    for (int64_t e = 0; e < 6; ++e) {
      EXPECT_EQ(table.addresses[e].gate != nullptr, backend.expert_slots().is_resident(layer, e));
    }
  }
  made->reset();
  EXPECT_EQ(num_leaked_, 0);
}

// In the second case the CPU gives up in the middle of the step while the GPU still goes through
// it: both sides count hand-overs from one number again, or the next step would wait for ever.
TEST_F(SharedSteps, AWaitThatTakesTooLongVoidsItsStepOnly) {
  auto made = create(-1, 0);
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_TRUE(run(**made, 1));
  exchange_->expire_next_wait();
  const Status status = run(**made, 1);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("did not wait any longer"), std::string::npos)
      << status.error().message;
  EXPECT_TRUE(run(**made, 3));
  exchange_->expire_next_wait(std::chrono::milliseconds(500));
  const Status given_up = run(**made, 1);
  ASSERT_FALSE(given_up);
  EXPECT_NE(given_up.error().message.find("did not ask for its next layer"), std::string::npos)
      << given_up.error().message;
  const Status next = run(**made, 3);
  EXPECT_TRUE(next) << next.error().message;
}

// Longer than what is divided layer by layer: all missing experts cross PCIe.
TEST_F(SharedSteps, EveryCallThatFailsInALongPromptEndsThatPromptOnly) {
  prefill_chunk_ = 4096;
  max_context_ = 4096;
  for (const int64_t slots : kSlots) {
    auto made = create(-1, slots);
    ASSERT_TRUE(made) << made.error().message;
    GpuBackend& backend = **made;
    ASSERT_TRUE(run(backend, {.prompt = 2100, .num_decode = 1}));
    EXPECT_GT(backend.expert_counts().streamed_bytes, 0);
    EXPECT_EQ(backend.expert_counts().prefill.computed_bytes, 0) << "the CPU takes no part";
    std::set<std::string> failed;
    fail_calls(backend, {.prompt = 2100, .num_decode = 0}, slots == 20 ? 1 : 7, failed);
    EXPECT_TRUE(slots != 20 || failed.contains("cudaStreamWaitEvent"));
    EXPECT_TRUE(backend.pages().check_integrity());
    made->reset();
    EXPECT_EQ(num_leaked_, 0);
  }
}

// Wherever the device is lost, the step says that it is lost, whatever code the error has that
// stays; so do all steps after it. Nothing hangs, and what was taken is given back.
TEST_F(SharedSteps, ALostDeviceIsToldAsSuchFromEveryCall) {
  fetch_share_ = 0.5;
  for (const ErrorKind kind :
       {ErrorKind::kDeviceLost, ErrorKind::kInternal, ErrorKind::kResource}) {
    for (const int64_t slots : {int64_t{-1}, int64_t{8}}) {
      for (int64_t n = 0, calls = n + 1; n < calls; n += 19) {  // every call would take seconds
        auto made = create(-1, slots);
        ASSERT_TRUE(made) << made.error().message;
        runtime_->fail_from_call(n, kind);
        const Status status = run(**made, 2);
        const Status next = run(**made, 1);
        if (status) break;  // a step has fewer calls
        calls = n + 20;
        for (const Status& s : {status, next}) {
          ASSERT_FALSE(s) << runtime_->failed_call() << " went unnoticed";
          EXPECT_EQ(s.error().kind, ErrorKind::kDeviceLost)
              << runtime_->failed_call() << ": " << s.error().message;
          EXPECT_NE(s.error().message.find("a failure for a test"), std::string::npos)
              << s.error().message;
        }
        made->reset();
        EXPECT_EQ(num_leaked_, 0);
      }
    }
  }
}

TEST_F(SharedSteps, ADeviceThatIsLostWhileABackendIsMadeIsToldAsSuch) {
  for (int64_t n = 0;; ++n) {
    ASSERT_LT(n, 10000);
    const auto made = create(n, 8, /*pins=*/true, ErrorKind::kDeviceLost);
    if (made && runtime_->num_calls() <= n) break;
    ASSERT_FALSE(made) << runtime_->failed_call() << " went unnoticed";
    EXPECT_EQ(made.error().kind, ErrorKind::kDeviceLost)
        << runtime_->failed_call() << ": " << made.error().message;
    EXPECT_EQ(num_leaked_, 0);
  }
}

// A part that can't be measured is told and keeps its typical rate; a lost device ends it. Only the
// last wait, when all is measured, is nobody's business.
TEST(Calibration, EveryCallThatFailsIsToldOrEndsIt) {
  constexpr int64_t kRamBytes = int64_t{1} << 20;
  cpu::WorkerPool pool(1);
  const MachineRates typical = typical_rates();
  for (const ErrorKind kind : {ErrorKind::kInternal, ErrorKind::kDeviceLost}) {
    int num_ignored = 0;
    for (int64_t n = 0;; ++n) {
      ASSERT_LT(n, 10000);
      int64_t num_leaked = 0;
      std::vector<std::string> notes;
      auto runtime = std::make_unique<FakeRuntime>(int64_t{8} << 20, &num_leaked);
      if (kind == ErrorKind::kDeviceLost) {
        runtime->fail_from_call(n, kind);
      } else {
        runtime->fail_call(n, kind);
      }
      const auto rates = calibrate(*runtime, pool, &notes, kRamBytes);
      const bool ended = runtime->num_calls() <= n;
      const std::string call = runtime->failed_call();
      runtime.reset();
      EXPECT_EQ(num_leaked, 0) << call;
      if (rates && notes.empty()) {
        EXPECT_NE(rates->gpu_bytes_per_s, typical.gpu_bytes_per_s);
        EXPECT_NE(rates->pcie_bytes_per_s, typical.pcie_bytes_per_s);
        if (ended) break;
        EXPECT_EQ(call, "cudaStreamSynchronize");
        ++num_ignored;
      } else if (kind == ErrorKind::kDeviceLost) {
        ASSERT_FALSE(rates) << call;
        EXPECT_EQ(rates.error().kind, ErrorKind::kDeviceLost) << rates.error().message;
      } else {
        ASSERT_TRUE(rates) << rates.error().message;
        ASSERT_EQ(notes.size(), 1u) << call;
        EXPECT_NE(notes[0].find(call), std::string::npos) << notes[0];
      }
    }
    EXPECT_EQ(num_ignored, 1);
  }
}

}  // namespace
}  // namespace hotset
