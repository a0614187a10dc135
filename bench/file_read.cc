// SPDX-License-Identifier: Apache-2.0
#include "file_read.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "memory/huge_buffer.h"

namespace hotset::bench {
namespace {

constexpr int64_t kPieceBytes = int64_t{8} << 20;

// Every thread takes the next piece; a failed read ends its thread.
void read_whole(const File& file, std::byte* to, int num_threads) {
  std::atomic<int64_t> next{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < num_threads; ++t) {
    threads.emplace_back([&] {
      for (int64_t at = next.fetch_add(kPieceBytes); at < file.size();
           at = next.fetch_add(kPieceBytes)) {
        const int64_t bytes = std::min(kPieceBytes, file.size() - at);
        if (!file.read_at(at, {to + at, static_cast<size_t>(bytes)})) return;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

Result<double> file_read_rate(const std::string& directory, int num_threads) {
  HS_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(directory));
  double seconds = 0;
  int64_t total = 0;
  for (const File& shard : checkpoint.shards()) {
    HS_ASSIGN_OR_RETURN(const HugeBuffer to, HugeBuffer::allocate(shard.size()));
    const auto start = std::chrono::steady_clock::now();
    read_whole(shard, to.data(), num_threads);
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    total += shard.size();
  }
  return static_cast<double>(total) / seconds;
}

}  // namespace hotset::bench
