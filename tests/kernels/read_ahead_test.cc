// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/read_ahead.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/cpu/queue.h"

namespace hotset::cpu {
namespace {

TEST(OwnedTiles, EachIsOneThreads) {
  for (const int64_t num_tiles : {1, 2, 32, 33, 128}) {
    for (const int workers : {1, 2, 15, 64}) {
      for (const int64_t expert : {0, 1, 511}) {
        std::vector<int> owners(static_cast<size_t>(num_tiles));
        for (int worker = 0; worker < workers; ++worker) {
          const Range tiles = owned_tiles(expert, num_tiles, worker, workers);
          for (int64_t t = tiles.begin; t < tiles.end; ++t) ++owners.at(static_cast<size_t>(t));
        }
        for (const int count : owners) {
          EXPECT_EQ(count, 1) << num_tiles << " tiles, " << workers << " workers";
        }
      }
    }
  }
}

struct Experts {
  explicit Experts(int count, int64_t width = 512, int64_t hidden = 2048) {
    const PackedShape inner{
        .code = CodeKind::kAffine4, .zero = 8, .rows = width, .cols = hidden, .group = 128};
    const PackedShape outer{
        .code = CodeKind::kAffine4, .zero = 8, .rows = hidden, .cols = width, .group = 128};
    memory.resize(static_cast<size_t>(2 * inner.bytes() + outer.bytes()));
    PackedMatrix gate{inner}, up{inner}, down{outer};
    gate.data = memory.data();
    up.data = gate.data + inner.bytes();
    down.data = up.data + inner.bytes();
    views.assign(static_cast<size_t>(count), {gate, up, down});
  }
  // What belongs to this worker of one expert.
  [[nodiscard]] int64_t bytes_of(int64_t expert, int worker, int workers) const {
    int64_t bytes = 0;
    const ExpertView& view = views[static_cast<size_t>(expert)];
    for (const PackedMatrix* m : {&view.gate, &view.up, &view.down}) {
      const Range tiles = owned_tiles(expert, m->num_tiles(), worker, workers);
      bytes += (tiles.end - tiles.begin) * m->tile_bytes();
    }
    return bytes;
  }
  std::vector<std::byte> memory;
  std::vector<ExpertView> views;
};

int64_t num_pieces(ReadAhead& ahead, int worker) {
  int64_t pieces = 0;
  while (ahead.piece(worker)) ++pieces;
  return pieces;
}

TEST(ReadAhead, GoesThroughEachThreadsTilesOfThePlan) {
  constexpr int kWorkers = 15;
  const Experts experts(8);
  ReadAhead ahead(kWorkers);
  EXPECT_EQ(num_pieces(ahead, 0), 0) << "nothing is planned yet";
  const std::vector<int32_t> ids = {5, 2};
  ahead.plan(experts.views, ids);
  for (int worker = 0; worker < kWorkers; ++worker) {
    const int64_t bytes =
        experts.bytes_of(5, worker, kWorkers) + experts.bytes_of(2, worker, kWorkers);
    const int64_t pieces = num_pieces(ahead, worker);
    EXPECT_GE(pieces * kPrefetchPiece, bytes) << "worker " << worker;
    EXPECT_LE(pieces, bytes / kPrefetchPiece + 6) << "worker " << worker;
    EXPECT_EQ(num_pieces(ahead, worker), 0) << "once is enough";
  }
  const std::vector<int32_t> other = {7};
  ahead.plan(experts.views, other);
  EXPECT_GT(num_pieces(ahead, 3), 0) << "a new plan begins anew";
}

TEST(ReadAhead, StopsWhereTheCacheIsFull) {
  const Experts experts(64);
  ReadAhead ahead(1);
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < 64; ++id) ids.push_back(id);
  ahead.plan(experts.views, ids);
  EXPECT_LT(num_pieces(ahead, 0) * kPrefetchPiece, int64_t{64} * 1000 * 1000)
      << "64 experts are 100 MB, more than any core's second cache";
}

}  // namespace
}  // namespace hotset::cpu
