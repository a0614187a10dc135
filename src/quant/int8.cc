// SPDX-License-Identifier: Apache-2.0
#include "quant/int8.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "base/float16.h"
#include "quant/row_words.h"

namespace hotset {
namespace {

constexpr float kRoundMagic = 12582912.0f;  // 1.5·2^23: adding and taking it away rounds to even

// One group of one row: codes as bytes, and the scale's stored bits. The sums are kept per group in
// fp32 so that the loops stay in registers.
uint16_t quantize_group(const float* values, int64_t count, uint8_t* codes, RequantLoss& loss) {
  float amax = 0;
  for (int64_t i = 0; i < count; ++i) amax = std::max(amax, std::fabs(values[i]));
  const uint16_t scale_bits = float_to_half(amax / 127.0f);
  const float scale = half_to_float(scale_bits);
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  float error_sum = 0, weight_sum = 0, max_error = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = std::min(127.0f, std::max(-127.0f, values[i] * inverse));
    const float rounded = (scaled + kRoundMagic) - kRoundMagic;
    codes[i] = static_cast<uint8_t>(static_cast<int32_t>(rounded) + 128);
    const float error = std::fabs(rounded * scale - values[i]);
    max_error = std::max(max_error, error);
    error_sum += error * error;
    weight_sum += values[i] * values[i];
  }
  loss.max_error = std::max(loss.max_error, double{max_error});
  loss.max_weight = std::max(loss.max_weight, double{amax});
  loss.sum_square_error += error_sum;
  loss.sum_square_weight += weight_sum;
  return scale_bits;
}

}  // namespace

void pack_int8(const PackedShape& shape, const float* rows, int64_t first_tile, int64_t num_tiles,
               std::byte* dst, RequantLoss& loss) {
  HS_CHECK(shape.code == CodeKind::kInt8 && shape.scale == ScaleKind::kF16 && !shape.has_zeros,
           "{}", code_kind_name(shape.code));
  std::vector<uint32_t> words(static_cast<size_t>(words_per_row(shape)));
  auto* codes = reinterpret_cast<uint8_t*>(words.data());
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    std::byte* base = dst + tile * shape.tile_bytes();
    const int64_t lanes = tile_lanes(shape, tile);
    if (lanes < kTileRows) std::memset(base, 0, static_cast<size_t>(shape.tile_bytes()));
    for (int64_t lane = 0; lane < lanes; ++lane, rows += shape.cols) {
      std::memset(codes, 128, words.size() * 4);  // padding columns are zeros
      for (int64_t g = 0; g < shape.num_groups(); ++g) {
        const int64_t first = g * shape.group;
        const int64_t count = std::min(shape.group, shape.cols - first);
        const uint16_t scale = quantize_group(rows + first, count, codes + first, loss);
        std::memcpy(base + g * shape.group_bytes() + 2 * lane, &scale, sizeof(scale));
      }
      put_lane_words(shape, words, lane, base);
    }
  }
}

}  // namespace hotset
