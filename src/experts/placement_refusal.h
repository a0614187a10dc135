// SPDX-License-Identifier: Apache-2.0
// What a memory plan says when it does not fit: what is needed, what there is, and the flags that
// make it fit. Every piece of advice has been counted: following it is enough.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "experts/placement.h"

namespace hotset {

// Fewer tokens than these are neither advised nor taken where a context was left open.
inline constexpr int64_t kLeastContext = 1024;

// `plan`: its form, budget and lines but slots. `needed_bytes`: more than the budget.
[[nodiscard]] tl::unexpected<Error> refuse_gpu(const PlacementInput& in, const Placement& plan,
                                               int64_t needed_bytes);
// `plan`: its budget and lines.
[[nodiscard]] tl::unexpected<Error> refuse_ram(const PlacementInput& in, const Placement& plan);

// "dense, 16 bits 1.20 GiB + KV 512 MiB"
[[nodiscard]] std::string lines_text(const std::vector<PlacementLine>& lines);
// Why no more may be used: "--ram; 20.00 GiB are available", "all that is available".
[[nodiscard]] std::string ram_limit_text(std::optional<int64_t> ram_bytes, int64_t available_bytes,
                                         bool is_imagined = false);

}  // namespace hotset
