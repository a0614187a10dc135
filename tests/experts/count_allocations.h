// SPDX-License-Identifier: Apache-2.0
// Proof that code allocates nothing: this program's operator new, counted while asked to.
#pragma once

#include <cstdint>

namespace hotset {

// Starts at zero; ends with what was handed out since. One thread.
void start_counting_allocations();
[[nodiscard]] int64_t stop_counting_allocations();

}  // namespace hotset
