// SPDX-License-Identifier: Apache-2.0
// HS_CHECK's place in .cu files, which nvcc can't compile with {fmt}'s headers: a shape that an
// operation does not know fails the queue instead of the process.
#pragma once

#include <string>

#include "kernels/cuda/queue.h"

namespace hotset::cuda {

[[nodiscard]] inline bool is_known_shape(Queue& queue, bool known, const char* operation) {
  if (!known) {
    queue.note(fail(std::string(operation) + ": a shape this operation is not made for",
                    ErrorKind::kInternal));
  }
  return known;
}

}  // namespace hotset::cuda
