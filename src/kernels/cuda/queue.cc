// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/queue.h"

#include <algorithm>
#include <string>

namespace hotset::cuda {

Result<Scratch> Scratch::create(Runtime& runtime, int64_t bytes) {
  Scratch scratch;
  HS_ASSIGN_OR_RETURN(scratch.memory_, DeviceMemory::allocate(runtime, bytes));
  return scratch;
}

std::byte* Scratch::take(int64_t bytes) {
  const int64_t end = used_ + (bytes + 255) / 256 * 256;
  most_used_ = std::max(most_used_, end);
  if (end > memory_.size()) return nullptr;
  std::byte* data = memory_.data() + used_;
  used_ = end;
  return data;
}

void Queue::note_scratch_exhausted(int64_t bytes) {
  note(fail("GPU scratch: " + std::to_string(bytes) + " bytes asked, " +
                std::to_string(scratch.size() - scratch.used()) + " of " +
                std::to_string(scratch.size()) + " left",
            ErrorKind::kInternal));
}

}  // namespace hotset::cuda
