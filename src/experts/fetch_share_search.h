// SPDX-License-Identifier: Apache-2.0
// Which share of a decode step's missed experts the GPU should read over PCIe while the CPU
// computes the others: learnt from the steps themselves, because rates measured at start do not say
// how two readers of one RAM share it in a step. Results do not depend on the share.
//
// It starts with none. Now and then a trial compares the settled share with another one in short
// runs, alternating so that a machine that drifts favours neither; a share that was faster by more
// than the noise is kept. While nothing changes, trials become ever rarer.
//
//   settled   A A A A A A A│A B B A A B … │A A A A A …     runs of a trial: A settled, B tried
//                    trial until decided ─┘
//
// Arithmetic only: it is told how long each step took.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hotset {

// Steps of different numbers of tokens miss so differently that each class has its own share.
inline constexpr int kNumFetchClasses = 3;
[[nodiscard]] int fetch_class(int64_t num_tokens);  // 1, 2–4, more

// What bounds a share whatever steps say.
struct FetchLimits {
  double expert_s = 0;     // one expert over PCIe with nothing beside it
  double max_fetched = 0;  // in a step
  double min_missed = 0;   // in a step: with fewer there is nothing to gain, and none is fetched
};

// Of one class.
class FetchShareSearch {
 public:
  explicit FetchShareSearch(const FetchLimits& limits);

  // Of the next step.
  [[nodiscard]] double share() const;
  // The best so far; differs from share() while another is tried.
  [[nodiscard]] double settled() const { return kUnit * settled_; }

  // A step with share() took so long; of the experts that it chose, so many were missed.
  void step_took(double seconds, int64_t num_missed);
  // A step with share() failed. If that share was a trial's, the trial is over.
  void step_failed();

 private:
  static constexpr double kUnit = 1.0 / 16;
  // Where to look from the settled share, in units; after a success, the same way again.
  static constexpr std::array<int, 6> kOffsets = {2, -2, 4, -4, 1, -1};

  // Of steps with the settled share, outside trials.
  struct Usual {
    int64_t num_steps = 0;
    double seconds = 0;     // means over the latest steps
    double num_missed = 0;  // …
    double missed_variance = 0;
    double covariance = 0;

    void add(double step_s, double step_missed);
    // A step's time, had it missed as many as usual.
    [[nodiscard]] double corrected(double step_s, double step_missed) const;
  };

  [[nodiscard]] int highest() const;
  [[nodiscard]] bool tries_now() const;
  void watch_for_change();
  void begin_trial();
  void end_run();
  void judge();
  void accept(double ratio);
  void reject();
  void look_elsewhere();

  FetchLimits limits_;
  int settled_ = 0;  // units
  Usual usual_;

  int64_t wait_;   // steps until the next trial
  int64_t pause_;  // steps between rounds of trials that change nothing
  size_t next_offset_ = 0;
  size_t num_rejected_ = 0;  // offsets since the last success
  double reference_s_ = 0;   // a step's time when the last round ended; 0: none
  int64_t num_changed_ = 0;  // steps for which it has been another
  int64_t hold_;             // so many of them start a new round

  bool is_trying_ = false;
  int tried_ = 0;  // units
  int64_t num_runs_ = 0;
  std::vector<double> run_;          // corrected times of the run's steps so far
  std::array<double, 2> medians_{};  // of the pair's runs: settled, tried
  std::vector<double> differences_;  // log(tried / settled) of each pair
};

}  // namespace hotset
