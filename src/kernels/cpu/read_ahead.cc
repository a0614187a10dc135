// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/read_ahead.h"

#include <unistd.h>

namespace hotset::cpu {
namespace {

int64_t l2_bytes() {
  constexpr int64_t kUnknown = 512 << 10;
  const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? bytes : kUnknown;
}

}  // namespace

ReadAhead::ReadAhead(int num_threads)
    : num_threads_(num_threads),
      cache_bytes_(l2_bytes() / 2),
      readers_(static_cast<size_t>(num_threads)) {}

void ReadAhead::plan(std::span<const ExpertView> experts, std::span<const int32_t> ids) {
  experts_ = experts;
  ids_ = ids;
  ++plan_;
}

std::span<const std::byte> ReadAhead::share(size_t matrix, int worker) const {
  const int32_t id = ids_[matrix / 3];
  const ExpertView& expert = experts_[static_cast<size_t>(id)];
  const PackedMatrix& m = matrix % 3 == 0 ? expert.gate : matrix % 3 == 1 ? expert.up : expert.down;
  const Range tiles = owned_tiles(id, m.num_tiles(), worker, num_threads_);
  const int64_t tile = m.tile_bytes();
  return {m.data + tiles.begin * tile, static_cast<size_t>((tiles.end - tiles.begin) * tile)};
}

bool ReadAhead::piece(int worker) {
  Reader& reader = readers_[static_cast<size_t>(worker)];
  if (reader.plan != plan_) reader = {.plan = plan_, .prefetch = RunPrefetcher(cache_bytes_)};
  return reader.prefetch([&]() -> std::span<const std::byte> {
    if (reader.matrix == 3 * ids_.size()) return {};
    return share(reader.matrix++, worker);
  });
}

}  // namespace hotset::cpu
