// SPDX-License-Identifier: Apache-2.0
// Float panels: fp32 activations against any weights, written once and compiled per instruction
// set. A row's sum runs over its columns in order, by fma, and is scaled once per group:
//   part = Σ fma(code value − zero, x, part)      y = Σ over groups fma(part, scale, y)
// One token's sum is a chain as long as the row, so few tokens are computed for several tiles at
// once to keep the multipliers busy; that changes no order.
#pragma once

#include "kernels/cpu/matmul_lanes.h"

namespace hotset::cpu {
namespace {

// How a kind's codes become floats: kColumns columns are read together.
template <CodeKind kCode>
struct Decoder {
  static constexpr int kColumns = kCode == CodeKind::kInt8 ? 4
                                  : kCode == CodeKind::kAffine4 || kCode == CodeKind::kCodebook4
                                      ? 8
                                      : 1;
  static constexpr int64_t kBytes = kCode == CodeKind::kF32   ? 64
                                    : kCode == CodeKind::kFp8 ? 16
                                    : kColumns > 1            ? 64
                                                              : 32;
  static constexpr bool kHasZero = kCode == CodeKind::kInt8 || kCode == CodeKind::kAffine4;
};

// Column kColumn of the step at `at`, zero not yet taken off.
template <CodeKind kCode, int kColumn>
[[gnu::always_inline]] inline Floats decode(const std::byte* at, const Table& table) {
  if constexpr (kCode == CodeKind::kF32) return load_floats(at);
  if constexpr (kCode == CodeKind::kF16) return load_halves(at);
  if constexpr (kCode == CodeKind::kBF16) return load_bf16s(at);
  if constexpr (kCode == CodeKind::kFp8) return load_fp8s(at);
  if constexpr (kCode == CodeKind::kInt8)
    return to_floats(bits_of<8 * kColumn, 255>(load_ints(at)));
  constexpr int kShift = 8 * (kColumn % 4) + 4 * (kColumn / 4);
  if constexpr (kCode == CodeKind::kAffine4) return to_floats(bits_of<kShift, 15>(load_ints(at)));
  if constexpr (kCode == CodeKind::kCodebook4)
    return lookup(table, bits_of<kShift, 15>(load_ints(at)));
}

template <int kTiles, int kTokens>
struct FloatBlock {
  const std::byte* codes[kTiles];
  const float* x[kTokens];
  Floats zero[kTiles];
  Floats part[kTiles][kTokens];
};

// One column of all tiles and tokens.
template <CodeKind kCode, int kColumn, int kTiles, int kTokens>
[[gnu::always_inline]] inline void float_column(FloatBlock<kTiles, kTokens>& b, const Table& table,
                                                int64_t at, int64_t col) {
  for (int m = 0; m < kTiles; ++m) {
    Floats w = decode<kCode, kColumn>(b.codes[m] + at, table);
    if constexpr (Decoder<kCode>::kHasZero) w = w - b.zero[m];
    for (int t = 0; t < kTokens; ++t) {
      b.part[m][t] = fma(w, splat(b.x[t][col + kColumn]), b.part[m][t]);
    }
  }
}

template <CodeKind kCode, int kTiles, int kTokens, int... kColumn>
[[gnu::always_inline]] inline void float_columns(FloatBlock<kTiles, kTokens>& b, const Table& table,
                                                 int64_t num_cols, IntList<kColumn...>) {
  constexpr int kColumns = sizeof...(kColumn);
  int64_t col = 0, at = 0;
  for (; col + kColumns <= num_cols; col += kColumns, at += Decoder<kCode>::kBytes) {
    (float_column<kCode, kColumn>(b, table, at, col), ...);
  }
  if constexpr (kColumns > 1) {
    ((col + kColumn < num_cols ? float_column<kCode, kColumn>(b, table, at, col) : void()), ...);
  }
}

template <CodeKind kCode, int kTiles, int kTokens>
void float_tiles(const TileFormat& f, const std::byte* tiles, const float* const* x,
                 Floats (*y)[kTokens]) {
  const Table table = load_table(f.codebook);
  for (int m = 0; m < kTiles; ++m) {
    for (int t = 0; t < kTokens; ++t) y[m][t] = splat(0.0f);
  }
  for (int64_t g = 0; g < f.num_groups; ++g) {
    const std::byte* group = tiles + g * f.group_bytes;
    const int64_t left = f.cols - g * f.group;
    FloatBlock<kTiles, kTokens> b;
    for (int t = 0; t < kTokens; ++t) b.x[t] = x[t] + g * f.group;
    for (int m = 0; m < kTiles; ++m) {
      const std::byte* block = group + m * f.tile_bytes;
      b.codes[m] = block + f.codes_offset;
      b.zero[m] = f.has_zeros ? load_bytes(block + f.zeros_offset) : splat(f.zero);
      for (int t = 0; t < kTokens; ++t) b.part[m][t] = splat(0.0f);
    }
    float_columns<kCode>(b, table, left < f.group ? left : f.group,
                         typename CountTo<Decoder<kCode>::kColumns>::List{});
    for (int m = 0; m < kTiles; ++m) {
      const Floats scale = load_scales(group + m * f.tile_bytes, f.scale);
      for (int t = 0; t < kTokens; ++t) y[m][t] = fma(b.part[m][t], scale, y[m][t]);
    }
  }
}

template <CodeKind kCode, int kTiles, int kTokens>
void float_block(const PanelArgs& a, int64_t tile, int64_t token) {
  const float* x[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    const int64_t row = a.input->rows != nullptr ? a.input->rows[token + t] : token + t;
    x[t] = a.input->x + row * a.input->ldx;
  }
  Floats y[kTiles][kTokens];
  float_tiles<kCode, kTiles, kTokens>(*a.format, a.tiles + tile * a.format->tile_bytes, x, y);
  for (int m = 0; m < kTiles; ++m) {
    const int64_t rows = a.num_rows - 16 * (tile + m);
    for (int t = 0; t < kTokens; ++t) {
      store_floats(a.y + (token + t) * a.ldy + 16 * (tile + m), y[m][t], rows < 16 ? rows : 16);
    }
  }
}

// All tiles against kTokens tokens, kTiles at a time.
template <CodeKind kCode, int kTiles, int kTokens>
void float_tokens(const PanelArgs& a, int64_t token) {
  int64_t tile = 0;
  for (; tile + kTiles <= a.num_tiles; tile += kTiles) {
    float_block<kCode, kTiles, kTokens>(a, tile, token);
  }
  if constexpr (kTiles > 1) {
    for (; tile < a.num_tiles; ++tile) float_block<kCode, 1, kTokens>(a, tile, token);
  }
}

template <CodeKind kCode>
void float_panel(const PanelArgs& a) {
  int64_t token = a.token_begin;
  const int64_t whole = (a.token_end - token) / kFloatTokens * kFloatTokens;
  for (int64_t tile = 0; tile < a.num_tiles; ++tile) {  // a tile stays in cache for its tokens
    for (int64_t t = 0; t < whole; t += kFloatTokens) {
      float_block<kCode, 1, kFloatTokens>(a, tile, token + t);
    }
  }
  token += whole;
  for (; a.token_end - token >= 4; token += 4) float_tokens<kCode, 1, 4>(a, token);
  for (; a.token_end - token >= 2; token += 2) float_tokens<kCode, 2, 2>(a, token);
  if (token < a.token_end) float_tokens<kCode, 4, 1>(a, token);
}

template <CodeKind... kCodes>
void set_float_panels(MatmulKernels& kernels) {
  ((kernels.panel_float[static_cast<int>(kCodes)] = float_panel<kCodes>), ...);
}

inline void set_all_float_panels(MatmulKernels& kernels) {
  set_float_panels<CodeKind::kF32, CodeKind::kF16, CodeKind::kBF16, CodeKind::kFp8, CodeKind::kInt8,
                   CodeKind::kAffine4, CodeKind::kCodebook4>(kernels);
}

}  // namespace
}  // namespace hotset::cpu
