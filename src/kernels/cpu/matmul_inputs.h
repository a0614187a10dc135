// SPDX-License-Identifier: Apache-2.0
// What matmul and moe_experts share: a weight's layout worked out, the input prepared the way a
// weight wants it, and a static, cost-weighted split of tiles over threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/checked_math.h"
#include "kernels/cpu/matmul_kernels.h"
#include "kernels/cpu/queue.h"

namespace hotset::cpu {

// How a weight wants its input. Weights with the same key share one prepared input.
struct InputKey {
  bool integer = false;  // rounded to int8 per sub-block of a group
  int64_t group = 0;     // 0 when not integer
  const int32_t* order = nullptr;
  bool operator==(const InputKey&) const = default;

  // fp32 in the model's own order: the caller's x as it is.
  [[nodiscard]] bool is_plain() const { return !integer && order == nullptr; }
};
[[nodiscard]] InputKey input_key(const PackedMatrix& weight, Arithmetic arithmetic);

// `previous` may be the format of another matrix: if both have the same codebook, it is taken over.
[[nodiscard]] TileFormat tile_format(const PackedMatrix& weight, const TileFormat* previous);

// Room for `rows` prepared inputs of `cols` columns (a plain key takes none and points to x).
[[nodiscard]] Activations take_activations(Scratch& scratch, const InputKey& key, int64_t rows,
                                           int64_t cols, const float* x, int64_t ldx);
// Prepares one row of them from x[0 … cols−1].
void prepare_row(const MatmulKernels& kernels, const InputKey& key, const Activations& to,
                 int64_t row, const float* x, int64_t cols);
// At least what take_activations takes.
[[nodiscard]] size_t input_bytes_bound(int64_t rows, int64_t cols);

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};
[[nodiscard]] inline Range even_share(int64_t count, int worker, int num_workers) {
  return {count * worker / num_workers, count * (worker + 1) / num_workers};
}
// The tiles of a matrix that belong to the share [cost.begin, cost.end) of all cost, when the
// matrix has num_tiles tiles of tile_cost each and `before` is the cost of all matrices ahead of
// it. Shares that touch hand out each tile once.
[[nodiscard]] inline Range tile_share(Range cost, int64_t before, int64_t tile_cost,
                                      int64_t num_tiles) {
  const auto first = [&](int64_t limit) {
    const int64_t tile = limit <= before ? 0 : ceil_div(limit - before, tile_cost);
    return tile < num_tiles ? tile : num_tiles;
  };
  return {first(cost.begin), first(cost.end)};
}
// In bytes of memory traffic: a tile read once, and its products at about ten to the byte.
[[nodiscard]] inline int64_t tile_cost(int64_t tile_bytes, int64_t cols, int64_t num_tokens) {
  return tile_bytes + num_tokens * cols * kTileRows / 10;
}
[[nodiscard]] inline int64_t tile_cost(const PackedShape& shape, int64_t num_tokens) {
  return tile_cost(shape.tile_bytes(), shape.cols, num_tokens);
}

// y[i, r] for tokens [0, num_tokens) and the rows of tiles [tiles.begin, tiles.end), at
// y[i · ldy + r − 16 · tiles.begin]. `next`: weights that this thread reads afterwards; null:
// unknown.
void run_tiles(const MatmulKernels& kernels, const PackedMatrix& weight, const TileFormat& format,
               const Activations& input, Range tiles, int64_t num_tokens, float* y, int64_t ldy,
               const std::byte* next = nullptr);

}  // namespace hotset::cpu
