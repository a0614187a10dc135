// SPDX-License-Identifier: Apache-2.0
#include "experts/fetch_share_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace hotset {
namespace {

constexpr int64_t kFirstWait = 16;  // until a step's usual time is known
constexpr int64_t kBetweenTrials = 24;
constexpr int64_t kAfterSuccess = 8;
constexpr int64_t kFirstPause = 256;
constexpr int64_t kLongestPause = 4096;

constexpr size_t kRunSteps = 4;
constexpr size_t kMaxPairs = 12;
constexpr size_t kPairsToAccept = 3, kPairsToReject = 2, kPairsToGiveUp = 6;
constexpr double kLeastGain = 0.01;
constexpr double kObvious = 0.1;      // two pairs that are all so much faster are enough,
constexpr double kLeastRatio = 0.25;  // no share makes a step faster than this; noise may seem to
constexpr double kBigStep = 0.85;     // the next one may be larger
constexpr double kHopeless = 0.2;     // and one that is so much slower

constexpr double kWindow = 64;     // steps that a mean remembers
constexpr double kOutlier = 1.5;   // a step that took longer by this factor counts as this
constexpr double kChanged = 0.1;   // another speed than when the shares were compared …
constexpr int64_t kForGood = 128;  // … for so many steps; twice as many each time it was in vain
constexpr int64_t kLongestHold = 2048;

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

struct Estimate {
  double mean = 0;
  double error = 0;    // standard error of the mean
  double t_value = 0;  // mean ± t_value · error holds the truth 19 times of 20
};

// From five values on, the least and the largest count as their neighbours: one burst of another
// process must not decide.
Estimate estimate(std::vector<double> values) {
  const size_t n = values.size();
  HS_CHECK(n >= 2, "{} values", n);
  size_t inner = n;
  if (n >= 5) {
    std::sort(values.begin(), values.end());
    values.front() = values[1];
    values.back() = values[n - 2];
    inner = n - 2;
  }
  const auto count = static_cast<double>(n);
  const double all_mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double v : values) squares += (v - all_mean) * (v - all_mean);
  const double deviation = std::sqrt(squares / (count - 1));
  Estimate out;
  const double outer = n == inner ? 0 : values.front() + values.back();
  out.mean = (all_mean * count - outer) / static_cast<double>(inner);
  out.error = deviation * std::sqrt(count) / static_cast<double>(inner);
  const auto freedom = static_cast<double>(inner - 1);
  out.t_value = 1.96 + 2.4 / freedom + 4.6 / (freedom * freedom);  // within 3 % from 2 on
  return out;
}

}  // namespace

int fetch_class(int64_t num_tokens) {
  if (num_tokens <= 1) return 0;
  return num_tokens <= 4 ? 1 : 2;
}

void FetchShareSearch::Usual::add(double step_s, double step_missed) {
  if (num_steps >= kFirstWait / 2) {
    step_s = std::clamp(step_s, seconds / kOutlier, seconds * kOutlier);
  }
  const double weight = std::max(1.0 / static_cast<double>(++num_steps), 1.0 / kWindow);
  const double ds = step_s - seconds, dm = step_missed - num_missed;
  seconds += weight * ds;
  num_missed += weight * dm;
  if (num_steps == 1) return;
  missed_variance = (1 - weight) * (missed_variance + weight * dm * dm);
  covariance = (1 - weight) * (covariance + weight * dm * ds);
}

// By regression; where misses hardly vary, hardly.
double FetchShareSearch::Usual::corrected(double step_s, double step_missed) const {
  if (num_missed <= 0 || seconds <= 0) return step_s;
  const double least_deviation = 0.02 * num_missed;
  const double slope = covariance / (missed_variance + least_deviation * least_deviation);
  const double elasticity = std::clamp(slope * num_missed / seconds, 0.0, 1.0);
  return step_s / std::clamp(1 + elasticity * (step_missed / num_missed - 1), 0.5, 2.0);
}

FetchShareSearch::FetchShareSearch(const FetchLimits& limits)
    : limits_(limits), wait_(kFirstWait), pause_(kFirstPause), hold_(kForGood) {
  run_.reserve(kRunSteps);
  differences_.reserve(kMaxPairs);
}

double FetchShareSearch::share() const {
  return kUnit * (tries_now() ? tried_ : settled_);
}

// A B, B A, A B …
bool FetchShareSearch::tries_now() const {
  return is_trying_ && (num_runs_ / 2 + num_runs_ % 2) % 2 == 1;
}

// What PCIe could bring in a step, and what there is room for.
int FetchShareSearch::highest() const {
  if (usual_.num_missed <= 0 || usual_.num_missed < limits_.min_missed) return 0;
  double most = limits_.max_fetched;
  if (limits_.expert_s > 0) most = std::min(most, usual_.seconds / limits_.expert_s);
  return static_cast<int>(std::min(1.0, most / usual_.num_missed) / kUnit);
}

void FetchShareSearch::step_took(double seconds, int64_t num_missed) {
  if (!(seconds > 0) || !std::isfinite(seconds)) return;
  const auto missed = static_cast<double>(num_missed);
  if (is_trying_) {
    run_.push_back(usual_.corrected(seconds, missed));
    if (run_.size() == kRunSteps) end_run();
    return;
  }
  usual_.add(seconds, missed);
  watch_for_change();
  if (--wait_ <= 0) begin_trial();
}

void FetchShareSearch::step_failed() {
  if (!tries_now()) return;
  run_.clear();
  reject();
}

void FetchShareSearch::watch_for_change() {
  if (reference_s_ <= 0) return;
  const bool is_another = std::abs(std::log(usual_.seconds / reference_s_)) > kChanged;
  num_changed_ = is_another ? num_changed_ + 1 : 0;
  if (num_changed_ < hold_) return;
  num_changed_ = 0;
  hold_ = std::min(2 * hold_, kLongestHold);
  reference_s_ = usual_.seconds;
  pause_ = kFirstPause;
  wait_ = std::min(wait_, kBetweenTrials);
}

void FetchShareSearch::begin_trial() {
  const int most = highest();
  settled_ = std::min(settled_, most);
  while (wait_ <= 0) {
    tried_ = settled_ + kOffsets[next_offset_];
    if (tried_ >= 0 && tried_ <= most) break;
    look_elsewhere();
  }
  if (wait_ > 0) return;
  is_trying_ = true;
  num_runs_ = 0;
  differences_.clear();
}

void FetchShareSearch::end_run() {
  medians_[tries_now() ? 1 : 0] = median(run_);
  run_.clear();
  if (++num_runs_ % 2 != 0) return;
  differences_.push_back(std::log(medians_[1] / medians_[0]));
  judge();
}

void FetchShareSearch::judge() {
  const size_t pairs = differences_.size();
  if (pairs < kPairsToReject) {
    if (differences_.front() > kHopeless) reject();
    return;
  }
  const Estimate d = estimate(differences_);
  const bool is_obvious = *std::max_element(differences_.begin(), differences_.end()) < -kObvious;
  const bool is_clear = pairs >= kPairsToAccept && d.mean + d.t_value * d.error < -kLeastGain;
  if (is_obvious || is_clear) {
    accept(std::exp(d.mean));
  } else if (d.mean > d.error / 2 || pairs == kMaxPairs ||
             (pairs >= kPairsToGiveUp && d.mean > -kLeastGain)) {
    reject();
  }
}

void FetchShareSearch::accept(double ratio) {
  settled_ = tried_;
  ratio = ratio > kLeastRatio ? std::min(ratio, 1.0) : kLeastRatio;  // not a number: as well
  if (ratio < kBigStep && next_offset_ < 2) next_offset_ += 2;  // further the same way
  usual_.seconds *= ratio;
  usual_.covariance *= ratio;
  is_trying_ = false;
  num_rejected_ = 0;
  pause_ = std::max(pause_ / 4, kFirstPause);
  hold_ = kForGood;
  wait_ = kAfterSuccess;
}

void FetchShareSearch::reject() {
  is_trying_ = false;
  wait_ = kBetweenTrials;
  look_elsewhere();
}

// The next offset; after all of them, a pause.
void FetchShareSearch::look_elsewhere() {
  next_offset_ = (next_offset_ + 1) % kOffsets.size();
  if (++num_rejected_ < kOffsets.size()) return;
  num_rejected_ = 0;
  next_offset_ = 0;
  reference_s_ = usual_.seconds;
  num_changed_ = 0;
  wait_ = pause_;
  pause_ = std::min(2 * pause_, kLongestPause);
}

}  // namespace hotset
