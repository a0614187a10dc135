// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/queue.h"

#include <algorithm>
#include <new>

#include "base/check.h"
#include "base/checked_math.h"
#include "kernels/cpu/matmul_inputs.h"

namespace hotset::cpu {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

void Scratch::FreeAligned::operator()(std::byte* data) const {
  ::operator delete (data, std::align_val_t{kAlignment});
}

void Scratch::reserve(size_t bytes) {
  if (!blocks_.empty() && blocks_.front().size >= bytes) return;
  HS_CHECK(top_.block == 0 && top_.used == 0, "scratch is reserved while {} bytes are in use",
           top_.used);
  auto* data = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kAlignment}));
  blocks_.clear();
  blocks_.push_back({std::unique_ptr<std::byte, FreeAligned>(data), bytes});
}

void* Scratch::take_bytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (top_.block < blocks_.size() && blocks_[top_.block].size - top_.used < bytes) {
    top_ = {top_.block + 1, 0};
  }
  if (top_.block == blocks_.size()) {
    const size_t size = std::max<size_t>(bytes, size_t{1} << 20);
    auto* data = static_cast<std::byte*>(::operator new (size, std::align_val_t{kAlignment}));
    blocks_.push_back({std::unique_ptr<std::byte, FreeAligned>(data), size});
    ++num_allocations_;
  }
  std::byte* at = blocks_[top_.block].data.get() + top_.used;
  top_.used += bytes;
  return at;
}

void Queue::reserve(int64_t num_tokens, int64_t num_cols, int64_t num_inputs) {
  scratch.reserve(static_cast<size_t>(num_inputs) * input_bytes_bound(num_tokens, num_cols));
}

}  // namespace hotset::cpu
