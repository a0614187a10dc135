// SPDX-License-Identifier: Apache-2.0
// What an insertion is worth, learned from what routing does: the evidence behind admission.
//
// An insertion costs one expert's bytes now and gains the candidate's uses to come, less those of
// the expert that it displaces. Both are measured, not assumed: when an expert becomes a candidate,
// and for the one that would go next, a *trial* starts that counts the steps in which that expert
// is chosen during the next `payback_steps`, resident or not. The mean count is kept by the score
// that the expert had at the start, in bins of a quarter octave, for candidates and victims apart.
//   gain(candidate, victim) = E[uses | candidate's score] - E[uses | victim's score]
// Where routing repeats itself, recent use foretells use and the gain is large. Where routing is
// uniform both means are equal, the gain is nil, and admission closes by itself; since the trials
// go on without insertions, it also opens again by itself. A bin with few trials takes in its
// neighbours; before any trial has ended, candidates are taken to be good.
//
// O(1) a call, O(bins) a question; memory is taken once. Experts are numbered
// layer · num_experts + expert.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hotset {

class InsertionValue {
 public:
  enum class Role : uint8_t { kCandidate, kVictim };

  // payback_steps: 1 to 65535.
  InsertionValue(int64_t num_ids, int32_t payback_steps);

  // Ends the trials that are over. Steps do not go back.
  void advance(int64_t step);
  // Starts a trial unless this expert is in one. `log_score` as in ExpertScore.
  void observe(Role role, int64_t id, double log_score, int64_t step);
  // The expert was chosen in a later step than the one of its observe(); once a step.
  void used(int64_t id) {
    Trial& trial = trials_[static_cast<size_t>(id)];
    if (trial.active) ++trial.uses;
  }

  [[nodiscard]] double expected_uses(Role role, double log_score) const;
  // Uses gained within payback_steps by putting one in the other's place.
  [[nodiscard]] double gain(double candidate_log_score, double victim_log_score) const {
    return expected_uses(Role::kCandidate, candidate_log_score) -
           expected_uses(Role::kVictim, victim_log_score);
  }

 private:
  static constexpr int kBins = 96;  // quarter octaves of score, from 2^-16 to 2^8
  static constexpr double kLowest = -16.0;
  static constexpr double kBinsPerOctave = 4.0;
  static constexpr int32_t kMemory = 256;       // older trials fade from a bin's mean
  static constexpr int32_t kEnoughTrials = 32;  // for an estimate

  struct Trial {
    uint16_t uses = 0;
    uint8_t bin = 0;
    Role role = Role::kCandidate;
    bool active = false;
  };
  struct Mean {
    double value = 0;
    int32_t weight = 0;
  };
  struct Pending {
    int64_t id = 0;
    int64_t end_step = 0;
  };

  [[nodiscard]] static int bin_of(double log_score);

  int32_t payback_steps_;
  std::vector<Trial> trials_;     // [num_ids]
  std::vector<Pending> pending_;  // ring, in the order of end_step; one entry an active trial
  size_t first_ = 0;
  size_t count_ = 0;
  std::array<std::array<Mean, kBins>, 2> means_;  // of a role's bins
};

}  // namespace hotset
