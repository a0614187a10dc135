// SPDX-License-Identifier: Apache-2.0
#include "read_ceiling.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "memory/huge_buffer.h"

namespace hotset::bench {
namespace {

// Eight independent sums: enough loads in flight for any core.
uint64_t sum_words(const uint64_t* words, int64_t count) {
  uint64_t sums[8] = {};
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    for (int64_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

Result<double> read_ceiling(cpu::WorkerPool& pool, int64_t bytes, int rounds) {
  HS_ASSIGN_OR_RETURN(HugeBuffer buffer, HugeBuffer::allocate(bytes));
  const int64_t part = bytes / pool.num_threads() / 64 * 64;
  pool.run([&](int worker, int) {
    std::memset(buffer.data() + worker * part, 1, static_cast<size_t>(part));
  });
  std::vector<uint64_t> sums(static_cast<size_t>(pool.num_threads()) * 8);
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int worker, int) {
      sums[static_cast<size_t>(worker) * 8] =
          sum_words(reinterpret_cast<const uint64_t*>(buffer.data() + worker * part), part / 8);
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(part * pool.num_threads()) / seconds);
  }
  if (sums[0] == 0) return fail("the read ceiling was not measured", ErrorKind::kInternal);
  return best;
}

}  // namespace hotset::bench
