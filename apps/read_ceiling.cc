// SPDX-License-Identifier: Apache-2.0
#include "read_ceiling.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "memory/huge_buffer.h"

namespace hotset::bench {
namespace {

constexpr int64_t kPieceBytes = int64_t{32} << 20;

// Four forward streams with prefetch, the most that weights are read with: one stream alone leaves
// about a third of a core's bandwidth unused.
uint64_t sum_words(const uint64_t* words, int64_t count) {
  constexpr int64_t kStreams = 4, kAhead = 256;
  const int64_t each = count / kStreams / 8 * 8;
  uint64_t sums[8] = {};
  for (int64_t i = 0; i < each; i += 8) {
    for (int64_t s = 0; s < kStreams; ++s) {
      const uint64_t* line = words + s * each + i;
      __builtin_prefetch(line + kAhead);
      for (int64_t j = 0; j < 8; ++j) sums[j] += line[j];
    }
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

Result<double> read_ceiling(cpu::WorkerPool& pool, int64_t bytes, int rounds) {
  HS_ASSIGN_OR_RETURN(HugeBuffer buffer, HugeBuffer::allocate(bytes));
  const int64_t piece = std::min(bytes, kPieceBytes);
  const int64_t part = piece / pool.num_threads() / 64 * 64;
  pool.run([&](int worker, int num_workers) {
    const int64_t share = bytes / num_workers;
    std::memset(buffer.data() + worker * share, 1, static_cast<size_t>(share));
  });
  std::vector<uint64_t> sums(static_cast<size_t>(pool.num_threads()) * 8);
  double best = 0;
  for (int64_t i = 0; i < rounds * (bytes / piece); ++i) {
    const std::byte* from = buffer.data() + i * piece % (bytes / piece * piece);
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int worker, int) {
      sums[static_cast<size_t>(worker) * 8] +=
          sum_words(reinterpret_cast<const uint64_t*>(from + worker * part), part / 8);
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(part * pool.num_threads()) / seconds);
  }
  if (sums[0] == 0) return fail("the read ceiling was not measured", ErrorKind::kInternal);
  return best;
}

}  // namespace hotset::bench
