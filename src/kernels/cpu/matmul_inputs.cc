// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/matmul_inputs.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "kernels/codebook.h"

namespace hotset::cpu {
namespace {

// Tokens that pass a run of tiles before the next run is read: their inputs stay in the L2 cache.
constexpr int64_t kTokensPerPass = 64;

bool is_integer_kind(CodeKind code) {
  return code == CodeKind::kInt8 || code == CodeKind::kAffine4 || code == CodeKind::kCodebook4;
}

// entry ≈ step · (code − 128)
void round_codebook(TileFormat& format) {
  float most = 0;
  for (const float entry : format.codebook) most = std::max(most, std::fabs(entry));
  constexpr auto kMost = static_cast<float>(kCodebookSteps);
  format.codebook_step = most > 0 ? most / kMost : 1.0f;
  for (size_t i = 0; i < 16; ++i) {
    const float code = std::nearbyint(format.codebook[i] / format.codebook_step);
    format.codebook_codes[i] = static_cast<uint8_t>(std::clamp(code, -kMost, kMost) + 128.0f);
  }
}

int64_t sub_blocks(int64_t cols, int64_t group) {
  return ceil_div(cols, group) * ceil_div(group, kSubBlock);
}

}  // namespace

Activations Activations::from_row(int64_t row) const {
  Activations from = *this;
  if (q != nullptr) {
    from.q += row * q_stride;
    from.scale += row * sub_stride;
    from.sum += row * sub_stride;
    from.group_sum += row * group_stride;
  } else {
    from.x += row * ldx;
  }
  return from;
}

InputKey input_key(const PackedMatrix& weight, Arithmetic arithmetic) {
  const bool integer = arithmetic == Arithmetic::kFast && is_integer_kind(weight.code);
  return {integer, integer ? weight.group : 0, weight.input_order};
}

TileFormat tile_format(const PackedMatrix& weight, const TileFormat* previous) {
  TileFormat format;
  if (weight.code == CodeKind::kCodebook4) {
    const size_t bytes = sizeof(format.codebook);
    if (previous != nullptr && previous->code == CodeKind::kCodebook4 &&
        std::memcmp(previous->codebook, weight.codebook, bytes) == 0) {
      format = *previous;
    } else {
      std::memcpy(format.codebook, weight.codebook, bytes);
      round_codebook(format);
    }
  }
  format.code = weight.code;
  format.scale = weight.scale;
  format.has_zeros = weight.has_zeros;
  format.zero = weight.zero;
  format.cols = weight.cols;
  format.group = weight.group;
  format.num_groups = weight.num_groups();
  format.group_bytes = weight.group_bytes();
  format.tile_bytes = weight.tile_bytes();
  format.zeros_offset = kTileRows * scale_bytes(weight.scale);
  format.codes_offset = weight.group_header_bytes();
  return format;
}

Activations take_activations(Scratch& scratch, const InputKey& key, int64_t rows, int64_t cols,
                             const float* x, int64_t ldx) {
  Activations a;
  if (key.is_plain()) {
    a.x = x;
    a.ldx = ldx;
  } else if (!key.integer) {
    a.x = scratch.take<float>(rows * cols);
    a.ldx = cols;
  } else {
    a.q_stride = round_up(cols, key.group);
    a.sub_stride = sub_blocks(cols, key.group);
    a.group_stride = ceil_div(cols, key.group);
    a.q = scratch.take<int8_t>(rows * a.q_stride);
    a.scale = scratch.take<float>(rows * a.sub_stride);
    a.sum = scratch.take<int32_t>(rows * a.sub_stride);
    a.group_sum = scratch.take<float>(rows * a.group_stride);
  }
  return a;
}

void prepare_row(const MatmulKernels& kernels, const InputKey& key, const Activations& to,
                 int64_t row, const float* x, int64_t cols) {
  if (key.integer) {
    kernels.quantize(x, key.order, cols, key.group, to.q + row * to.q_stride,
                     to.scale + row * to.sub_stride, to.sum + row * to.sub_stride,
                     to.group_sum + row * to.group_stride);
  } else if (key.order != nullptr) {
    float* out = const_cast<float*>(to.x) + row * to.ldx;
    for (int64_t c = 0; c < cols; ++c) out[c] = x[key.order[c]];
  }
}

size_t input_bytes_bound(int64_t rows, int64_t cols) {
  // A group of 8 columns has 8 + 4 + 4 + 4 bytes, fp32 of them 32; a group may reach past the row.
  constexpr int64_t kLongestGroupTail = 256;
  return static_cast<size_t>(rows * 4 * (cols + kLongestGroupTail) + 4 * 64);
}

void run_tiles(const MatmulKernels& kernels, const PackedMatrix& weight, const TileFormat& format,
               const Activations& input, Range tiles, int64_t num_tokens, float* y, int64_t ldy,
               const std::byte* next) {
  const auto kind = static_cast<size_t>(weight.code);
  const PanelFn panel =
      input.q != nullptr ? kernels.panel_integer[kind] : kernels.panel_float[kind];
  PanelArgs args{.format = &format,
                 .tiles = weight.data + tiles.begin * format.tile_bytes,
                 .num_tiles = tiles.end - tiles.begin,
                 .num_rows = std::min(tiles.end * kTileRows, weight.rows) - tiles.begin * kTileRows,
                 .input = &input,
                 .next = next,
                 .y = y,
                 .ldy = ldy};
  for (int64_t token = 0; token < num_tokens; token += kTokensPerPass) {
    args.token_begin = token;
    args.token_end = std::min(token + kTokensPerPass, num_tokens);
    panel(args);
  }
}

}  // namespace hotset::cpu
