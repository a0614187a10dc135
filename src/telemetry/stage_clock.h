// SPDX-License-Identifier: Apache-2.0
// Where the time of a forward pass goes, and how many bytes each stage had to read: speed explained
// in bytes. A clock belongs to the thread that computes; a null clock costs a branch.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace hotset {

enum class Stage : uint8_t {
  kEmbed,
  kMixerProjections,  // every linear of both mixers
  kDeltaNet,          // conv, gates, delta rule: the recurrent state, read and written
  kAttention,         // rope, KV append, attention: bytes are the KV pages'
  kRouter,            // router and shared-expert gate
  kExperts,           // routed and shared experts; of a GPU's time only those that lie there
  kExpertsWait,       // a GPU waits for experts that the CPU computes, or that cross PCIe
  kNorms,
  kHead,
  kNumStages
};

[[nodiscard]] const char* stage_name(Stage stage);  // "experts"

struct StageTotals {
  double seconds = 0;
  int64_t bytes = 0;  // that had to move at least once
  int64_t calls = 0;
};

class StageClock {
 public:
  void add(Stage stage, double seconds, int64_t bytes) {
    StageTotals& totals = totals_[static_cast<size_t>(stage)];
    totals.seconds += seconds;
    totals.bytes += bytes;
    totals.calls += 1;
  }
  [[nodiscard]] const StageTotals& operator[](Stage stage) const {
    return totals_[static_cast<size_t>(stage)];
  }
  void reset() { totals_ = {}; }

 private:
  std::array<StageTotals, static_cast<size_t>(Stage::kNumStages)> totals_{};
};

// Times a scope. `bytes` is what the scope reads, known when it opens.
class StageScope {
 public:
  StageScope(StageClock* clock, Stage stage, int64_t bytes = 0)
      : clock_(clock), stage_(stage), bytes_(bytes) {
    if (clock_ != nullptr) start_ = std::chrono::steady_clock::now();
  }
  ~StageScope() {
    if (clock_ == nullptr) return;
    const auto elapsed = std::chrono::steady_clock::now() - start_;
    clock_->add(stage_, std::chrono::duration<double>(elapsed).count(), bytes_);
  }
  StageScope(const StageScope&) = delete;
  StageScope& operator=(const StageScope&) = delete;

 private:
  StageClock* clock_;
  Stage stage_;
  int64_t bytes_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace hotset
