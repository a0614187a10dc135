// SPDX-License-Identifier: Apache-2.0
// A scale that is not a number, or infinite, spoils every answer and says so nowhere. Damaged files
// have such scales; sound ones never do, so loading stops at the first.
#pragma once

#include <cstddef>
#include <span>

#include "base/result.h"
#include "checkpoint/checkpoint.h"

namespace hotset {

// `scales`: the whole tensor as it lies in the file. Types that can't hold a non-finite value pass.
[[nodiscard]] Status check_finite_scales(const TensorInfo& tensor,
                                         std::span<const std::byte> scales);

// The same for scales that were computed from `tensor`.
[[nodiscard]] Status check_finite_scales(const TensorInfo& tensor, std::span<const float> scales);

}  // namespace hotset
