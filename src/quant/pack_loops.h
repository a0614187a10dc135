// SPDX-License-Identifier: Apache-2.0
// The inner loops of the packers, in one table an instruction set. What they write does not depend
// on the table, bit for bit, sums of a requantising loss included; set_code() and its siblings are
// the oracle (tests/quant).
//
// All pointers may be unaligned. A step is 64 bytes: one word of each of a tile's 16 rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hotset {

// What has to happen to a stored word on its way into a step.
enum class WordOrder : uint8_t {
  kAsStored,   // 4 columns of 8 bits
  kLowFirst,   // 8 columns of 4 bits, low nibble first: step_word()
  kHighFirst,  // 8 columns of 4 bits, a byte's high nibble first
};

// Sixteen running sums each, so that the order of additions is the same on every machine.
struct Int8Sums {
  alignas(32) float square_error[16] = {};
  alignas(32) float square_weight[16] = {};
  alignas(32) float max_error[16] = {};
};

struct PackLoops {
  const char* name = "";

  // num_steps steps whose 16 words lie together, `stride` bytes from one to the next.
  void (*copy_steps)(WordOrder order, const std::byte* from, int64_t stride, int64_t num_steps,
                     std::byte* to);

  // The first num_words words of `lanes` rows, `stride` bytes apart, turned into num_words steps.
  // Lanes past `lanes` are left as they are.
  void (*turn_rows)(WordOrder order, const std::byte* from, int64_t stride, int64_t lanes,
                    int64_t num_words, std::byte* to);

  // AWQ: for kAwqTiles neighbouring tiles, num_steps steps of eight inputs each. `from` is 64 bytes
  // of an input's line, lines are `stride` bytes apart; `to` is the first tile's, the others follow
  // `tile_stride` bytes apart.
  void (*turn_awq)(const std::byte* from, int64_t stride, int64_t num_steps, std::byte* to,
                   int64_t tile_stride);

  // `count` stored values as fp32, exactly, and zeros up to `padded`, a multiple of 8. Returns the
  // largest magnitude; NaN when there is one.
  using Widen = float (*)(const std::byte* from, int64_t count, int64_t padded, float* to);
  Widen widen_bf16;
  Widen widen_f16;
  Widen widen_f32;

  // to[i] = values[i]·factor as a half, which must be able to hold it. Returns the largest
  // magnitude of values·factor; NaN when there is one.
  float (*halve)(const float* values, int64_t count, float factor, uint16_t* to);

  // codes[i] = round to even(values[i]·inverse), held within ±127, + 128; adds to `sums`. `count`
  // is a multiple of 16; `scale` is the largest magnitude / 127 as a half holds it.
  void (*quantize)(const float* values, int64_t count, float scale, float inverse, uint8_t* codes,
                   Int8Sums& sums);
};

inline constexpr int64_t kAwqTiles = 8;

[[nodiscard]] const PackLoops& pack_loops_scalar();
[[nodiscard]] const PackLoops& pack_loops_avx2();

// The fastest that this machine can run, and all of them.
[[nodiscard]] const PackLoops& pack_loops();
[[nodiscard]] std::vector<const PackLoops*> all_pack_loops();

}  // namespace hotset
