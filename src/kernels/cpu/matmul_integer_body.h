// SPDX-License-Identifier: Apache-2.0
// Integer panels: int8 activations against 4-bit, codebook or int8 weights, written once and
// compiled per instruction set. The order of a row's fp32 operations is fixed:
//   part = Σ over sub-blocks, in order, of fma(float(dot), activation scale, part)
//   part = fma(−zero, Σ scale·q of the group, part)           unless the zero is 0
//   y    = Σ over groups, in order, of fma(part, weight scale, y)
#pragma once

#include "kernels/cpu/matmul_lanes.h"

namespace hotset::cpu {
namespace {

// The processor's own prefetch stops at page ends and starts anew behind them. With loaded memory a
// page ahead is right: 187 GB/s against 152 at half a page (experts, 15 threads of a Xeon).
constexpr int64_t kPrefetchBytes = 4096;

// Where a panel's weights end, and how far from there reading goes on.
struct WeightsAhead {
  const std::byte* end = nullptr;
  int64_t jump = 0;

  explicit WeightsAhead(const PanelArgs& a) : end(a.tiles + a.num_tiles * a.format->tile_bytes) {
    // Nothing is known to follow: lines that are in the cache already.
    jump = (a.next != nullptr ? a.next : a.tiles) - end;
  }
  [[nodiscard]] const std::byte* operator()(const std::byte* now) const {
    const std::byte* ahead = now + kPrefetchBytes;
    return ahead < end ? ahead : ahead + jump;
  }
};

struct GroupCorrection {
  bool needed = false;
  Floats minus_zero;
};

inline GroupCorrection group_correction(const TileFormat& f, const std::byte* group, float offset) {
  if (f.has_zeros) return {true, splat(offset) - load_bytes(group + f.zeros_offset)};
  return {f.zero != offset, splat(offset - f.zero)};
}

// kTokens tokens, rows `row[t]` of the input, against one tile.
template <CodeKind kCode, int kTokens>
void integer_tile(const TileFormat& f, const std::byte* tile, const Activations& in,
                  const int64_t* row, const WeightsAhead& weights_ahead, Floats* y) {
  constexpr float kOffset = kCode == CodeKind::kInt8 ? 128.0f : 0.0f;  // already in the codes
  constexpr int64_t kStepBytes = kCode == CodeKind::kInt8 ? 128 : 64;  // of 8 columns
  constexpr int64_t kFullSteps = kSubBlock / 8;
  const DotTables tables = load_dot_tables(f);
  const int8_t* q[kTokens];
  const float* scale[kTokens];
  const int32_t* sum[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    q[t] = in.q + row[t] * in.q_stride;
    scale[t] = in.scale + row[t] * in.sub_stride;
    sum[t] = in.sum + row[t] * in.sub_stride;
    y[t] = splat(0.0f);
  }
  int64_t sub = 0;
  for (int64_t g = 0; g < f.num_groups; ++g) {
    const std::byte* group = tile + g * f.group_bytes;
    const std::byte* codes = group + f.codes_offset;
    const std::byte* ahead = weights_ahead(group);
    prefetch(ahead);
    ahead += f.codes_offset;
    Floats part[kTokens];
    for (int t = 0; t < kTokens; ++t) part[t] = splat(0.0f);
    for (int64_t col = 0; col < f.group; col += kSubBlock, ++sub) {
      Ints dot[kTokens];
      int32_t q_sum[kTokens];
      for (int t = 0; t < kTokens; ++t) q_sum[t] = sum[t][sub];
      for (int64_t b = 0; b < kFullSteps * kStepBytes; b += 64) prefetch(ahead + b);
      ahead += kFullSteps * kStepBytes;
      const int64_t steps = (f.group - col) / 8;
      if (steps >= kFullSteps) {
        dot_block<kCode, kTokens>(tables, codes, kFullSteps, q, q_sum, dot);
      } else {
        dot_block<kCode, kTokens>(tables, codes, steps, q, q_sum, dot);
      }
      const int64_t done = steps < kFullSteps ? steps : kFullSteps;
      codes += done * kStepBytes;
      for (int t = 0; t < kTokens; ++t) {
        q[t] += 8 * done;
        part[t] = fma(to_floats(dot[t]), splat(scale[t][sub]), part[t]);
      }
    }
    if constexpr (kCode != CodeKind::kCodebook4) {
      const GroupCorrection zero = group_correction(f, group, kOffset);
      if (zero.needed) {
        for (int t = 0; t < kTokens; ++t) {
          const float group_sum = in.group_sum[row[t] * in.group_stride + g];
          part[t] = fma(zero.minus_zero, splat(group_sum), part[t]);
        }
      }
    }
    Floats weight_scale = load_scales(group, f.scale);
    if constexpr (kCode == CodeKind::kCodebook4) {
      weight_scale = weight_scale * splat(f.codebook_step);
    }
    for (int t = 0; t < kTokens; ++t) y[t] = fma(part[t], weight_scale, y[t]);
  }
}

template <CodeKind kCode, int kTokens>
int64_t integer_tokens(const PanelArgs& a, int64_t tile, int64_t token) {
  int64_t row[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    row[t] = a.input->rows != nullptr ? a.input->rows[token + t] : token + t;
  }
  Floats y[kTokens];
  integer_tile<kCode, kTokens>(*a.format, a.tiles + tile * a.format->tile_bytes, *a.input, row,
                               WeightsAhead(a), y);
  const int64_t rows = a.num_rows - 16 * tile;
  for (int t = 0; t < kTokens; ++t) {
    store_floats(a.y + (token + t) * a.ldy + 16 * tile, y[t], rows < 16 ? rows : 16);
  }
  return kTokens;
}

// The same for `count` of them, at most kMost.
template <CodeKind kCode, int kMost>
int64_t some_tokens(const PanelArgs& a, int64_t tile, int64_t token, int64_t count) {
  if constexpr (kMost > 1) {
    if (count < kMost) return some_tokens<kCode, kMost - 1>(a, tile, token, count);
  }
  return integer_tokens<kCode, kMost>(a, tile, token);
}

// In as few passes over a tile as there can be, each with about as many tokens: every pass unpacks
// its codes anew, and a pass of few tokens waits for its sums.
template <CodeKind kCode>
void integer_panel(const PanelArgs& a) {
  for (int64_t tile = 0; tile < a.num_tiles; ++tile) {
    for (int64_t token = a.token_begin; token < a.token_end;) {
      const int64_t left = a.token_end - token;
      const int64_t passes = (left + kIntegerTokens - 1) / kIntegerTokens;
      token += some_tokens<kCode, kIntegerTokens>(a, tile, token, (left + passes - 1) / passes);
    }
  }
}

inline void set_integer_panels(MatmulKernels& kernels) {
  kernels.panel_integer[static_cast<int>(CodeKind::kInt8)] = integer_panel<CodeKind::kInt8>;
  kernels.panel_integer[static_cast<int>(CodeKind::kAffine4)] = integer_panel<CodeKind::kAffine4>;
  kernels.panel_integer[static_cast<int>(CodeKind::kCodebook4)] =
      integer_panel<CodeKind::kCodebook4>;
}

}  // namespace
}  // namespace hotset::cpu
