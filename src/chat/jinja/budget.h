// SPDX-License-Identifier: Apache-2.0
// The running account of one render: steps spent and bytes alive. Going over sets a sticky reason
// instead of failing on the spot; whatever grows stops growing once it is set, and the interpreter
// looks at it after every operation. That keeps string and list code free of error plumbing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "chat/jinja/limits.h"

namespace hotset::jinja {

class Budget {
 public:
  explicit Budget(const RenderLimits& limits) : limits_(limits), steps_left_(limits.max_steps) {}
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  void spend(size_t steps) {
    steps_left_ -= static_cast<int64_t>(steps < kManySteps ? steps : kManySteps);
    if (steps_left_ < 0 && exceeded_ == nullptr) exceeded_ = "too many steps";
  }
  void hold(size_t bytes) {
    live_bytes_ += bytes;
    if (live_bytes_ > limits_.max_live_bytes && exceeded_ == nullptr) exceeded_ = "too much memory";
  }
  void release(size_t bytes) { live_bytes_ -= bytes; }
  void refuse(const char* reason) {
    if (exceeded_ == nullptr) exceeded_ = reason;
  }

  // Asked before one allocation of a size that a template chooses.
  [[nodiscard]] bool can_hold(size_t bytes) const {
    return bytes <= limits_.max_live_bytes && live_bytes_ <= limits_.max_live_bytes - bytes;
  }
  [[nodiscard]] bool exceeded() const { return exceeded_ != nullptr; }
  [[nodiscard]] const char* reason() const { return exceeded_; }
  [[nodiscard]] const RenderLimits& limits() const { return limits_; }
  [[nodiscard]] size_t live_bytes() const { return live_bytes_; }

 private:
  static constexpr size_t kManySteps = size_t{1} << 40;
  RenderLimits limits_;
  int64_t steps_left_;
  size_t live_bytes_ = 0;
  const char* exceeded_ = nullptr;
};

// Bytes held in a budget for as long as this object lives. A null budget (values of the parsed
// template itself, bounded by the source's size) costs nothing.
class Charge {
 public:
  Charge() = default;
  Charge(Budget* budget, size_t bytes) : budget_(budget), bytes_(bytes) {
    if (budget_ != nullptr) budget_->hold(bytes_);
  }
  Charge(Charge&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge() {
    if (budget_ != nullptr) budget_->release(bytes_);
  }
  void add(size_t bytes) {
    bytes_ += bytes;
    if (budget_ != nullptr) budget_->hold(bytes);
  }

 private:
  Budget* budget_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace hotset::jinja
