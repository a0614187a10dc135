// SPDX-License-Identifier: Apache-2.0
// Asking for memory ahead of its use, for threads that have to wait in any case.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hotset::cpu {

inline constexpr int64_t kPrefetchPiece = 1024;  // bytes asked for at once

// To the second-level cache.
inline void prefetch_lines(const std::byte* at, int64_t bytes) {
  constexpr int64_t kLine = 64;
  for (int64_t i = 0; i < bytes; i += kLine) __builtin_prefetch(at + i, 0, 2);
}

// Goes through runs of memory, a piece a call, until `limit` bytes were asked for.
class RunPrefetcher {
 public:
  explicit RunPrefetcher(int64_t limit) : limit_(limit) {}
  // next_run(): a span; one without data at the end. False: nothing was left, or no room.
  template <typename NextRun>
  bool operator()(const NextRun& next_run) {
    while (at_ == end_) {
      const std::span<const std::byte> next = next_run();
      if (next.data() == nullptr) return false;
      at_ = next.data();
      end_ = at_ + next.size();
    }
    const int64_t bytes = std::min<int64_t>({end_ - at_, limit_, kPrefetchPiece});
    prefetch_lines(at_, bytes);
    at_ += bytes;
    limit_ -= bytes;
    return bytes > 0;
  }

 private:
  int64_t limit_;
  const std::byte* at_ = nullptr;
  const std::byte* end_ = nullptr;
};

}  // namespace hotset::cpu
