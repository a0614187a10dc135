// SPDX-License-Identifier: Apache-2.0
// How long something took, by a clock that only goes forward.
#pragma once

#include <chrono>

namespace hotset {

using Clock = std::chrono::steady_clock;

[[nodiscard]] inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace hotset
