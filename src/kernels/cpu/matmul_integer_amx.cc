// SPDX-License-Identifier: Apache-2.0
// Integer panels for many tokens with AMX: one tile instruction multiplies 16 tokens × 32 columns
// by 32 columns × 16 rows, exactly a sub-block, and the packed layout of 4-column steps is the one
// that tiles want. The integers are those of the other instruction sets and the fp32 operations
// come in the same order, so the bits are the same. Fewer than 16 tokens, tokens that don't lie one
// behind the other and groups that aren't whole sub-blocks go to the AVX-512 panels.
#include "kernels/cpu/matmul_integer_body.h"

namespace hotset::cpu {
namespace {

constexpr int kBlockTokens = 16;
constexpr int64_t kMaxBlocks = 4;   // token blocks that use a chunk of unpacked codes
constexpr int64_t kChunkSubs = 16;  // sub-blocks unpacked at once: 8 KiB
constexpr int64_t kSubBytes = kSubBlock * 16;

// Tile registers; the instructions want literals.
#define HS_SUM 0
#define HS_TOKENS 1
#define HS_CODES 2

// g++ 12's tile loads don't say that they read memory: what was written before must be kept and
// done.
inline void finish_writes(const void* memory) {
  asm volatile("" : : "r"(memory) : "memory");
}

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

TileConfig tile_config() {
  TileConfig config;
  const auto set = [&](int tile, int rows, int row_bytes) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
  };
  set(HS_SUM, kBlockTokens, 64);
  set(HS_TOKENS, kBlockTokens, kSubBlock);
  set(HS_CODES, kSubBlock / 4, 64);
  return config;
}

// A token block's fp32 values: 16 tokens × 16 rows.
struct alignas(64) Block {
  float v[kBlockTokens][16];
};

struct alignas(64) UnpackedCodes {
  uint8_t bytes[kChunkSubs * kSubBytes];
};

template <CodeKind kCode>
void unpack_chunk(const DotTables& tables, const std::byte* codes, int64_t num_subs,
                  UnpackedCodes& to) {
  for (int64_t vec = 0; vec < num_subs * kSubBlock / 4; ++vec) {
    _mm512_store_si512(to.bytes + 64 * vec, unpack_codes<kCode>(tables, codes, vec));
  }
  finish_writes(&to);
}

// sums[t] = 16 rows' dot products of one sub-block with token t.
[[gnu::always_inline]] inline void multiply_sub_block(const uint8_t* codes, const int8_t* q,
                                                      int64_t q_stride, int32_t* sums) {
  _tile_loadd(HS_TOKENS, q, q_stride);
  _tile_loadd(HS_CODES, codes, 64);
  _tile_zero(HS_SUM);
  _tile_dpbsud(HS_SUM, HS_TOKENS, HS_CODES);
  _tile_stored(HS_SUM, sums, 64);
}

// part[t] = fma(float(dot), scale, part[t]) over num_subs sub-blocks in order, from `sub` on; the
// token block starts at row `row` of the input.
template <CodeKind kCode>
void add_sub_blocks(const uint8_t* codes, int64_t num_subs, const Activations& in, int64_t row,
                    int64_t sub, Block& parts) {
  constexpr int kOffset = kCode == CodeKind::kAffine4 ? 0 : -128;
  alignas(64) int32_t sums[2][kBlockTokens * 16];
  Floats part[kBlockTokens];  // stay in registers, given that the loops are unrolled
#pragma GCC unroll 16
  for (int t = 0; t < kBlockTokens; ++t) part[t] = load_floats(parts.v[t]);
  for (int64_t s = 0; s < num_subs; ++s) {
    int32_t* dots = sums[s % 2];
    multiply_sub_block(codes + s * kSubBytes, in.q + row * in.q_stride + (sub + s) * kSubBlock,
                       in.q_stride, dots);
    const float* scale = in.scale + row * in.sub_stride + sub + s;
    const int32_t* sum = in.sum + row * in.sub_stride + sub + s;
#pragma GCC unroll 16
    for (int t = 0; t < kBlockTokens; ++t) {
      __m512i dot = _mm512_load_si512(dots + 16 * t);
      if constexpr (kOffset != 0) {
        dot = _mm512_add_epi32(dot, _mm512_set1_epi32(kOffset * sum[t * in.sub_stride]));
      }
      part[t] = fma(to_floats(Ints{dot}), splat(scale[t * in.sub_stride]), part[t]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kBlockTokens; ++t) store_floats(parts.v[t], part[t], 16);
}

// What integer_tile does at the end of a group.
template <CodeKind kCode>
void finish_group(const TileFormat& f, const std::byte* group, int64_t g, const Activations& in,
                  int64_t row, Block& parts, Block& y) {
  constexpr float kOffset = kCode == CodeKind::kInt8 ? 128.0f : 0.0f;
  const GroupCorrection zero = group_correction(f, group, kOffset);
  Floats weight_scale = load_scales(group, f.scale);
  if constexpr (kCode == CodeKind::kCodebook4) weight_scale = weight_scale * splat(f.codebook_step);
  for (int t = 0; t < kBlockTokens; ++t) {
    Floats part = load_floats(parts.v[t]);
    if (kCode != CodeKind::kCodebook4 && zero.needed) {
      part = fma(zero.minus_zero, splat(in.group_sum[(row + t) * in.group_stride + g]), part);
    }
    store_floats(y.v[t], fma(part, weight_scale, load_floats(y.v[t])), 16);
  }
}

// One tile against num_blocks · 16 tokens from input row `row` on.
template <CodeKind kCode>
void amx_tile(const TileFormat& f, const std::byte* tile, const Activations& in, int64_t row,
              int64_t num_blocks, Block* y) {
  constexpr int64_t kSubCodeBytes = kCode == CodeKind::kInt8 ? kSubBytes : kSubBytes / 2;
  const DotTables tables = load_dot_tables(f);
  const int64_t subs_per_group = f.group / kSubBlock;
  UnpackedCodes unpacked;
  for (int64_t g = 0; g < f.num_groups; ++g) {
    const std::byte* group = tile + g * f.group_bytes;
    Block parts[kMaxBlocks];
    for (int64_t b = 0; b < num_blocks; ++b) parts[b] = Block{};
    for (int64_t sub = 0; sub < subs_per_group; sub += kChunkSubs) {
      const int64_t left = subs_per_group - sub;
      const int64_t num_subs = left < kChunkSubs ? left : kChunkSubs;
      const std::byte* codes = group + f.codes_offset + sub * kSubCodeBytes;
      const uint8_t* bytes = unpacked.bytes;
      if constexpr (kCode == CodeKind::kInt8) {
        bytes = reinterpret_cast<const uint8_t*>(codes);
      } else {
        unpack_chunk<kCode>(tables, codes, num_subs, unpacked);
      }
      for (int64_t b = 0; b < num_blocks; ++b) {
        add_sub_blocks<kCode>(bytes, num_subs, in, row + b * kBlockTokens, g * subs_per_group + sub,
                              parts[b]);
      }
    }
    for (int64_t b = 0; b < num_blocks; ++b) {
      finish_group<kCode>(f, group, g, in, row + b * kBlockTokens, parts[b], y[b]);
    }
  }
}

template <CodeKind kCode>
void amx_blocks(const PanelArgs& a, int64_t token, int64_t num_blocks) {
  for (int64_t tile = 0; tile < a.num_tiles; ++tile) {
    Block y[kMaxBlocks];
    for (int64_t b = 0; b < num_blocks; ++b) y[b] = Block{};
    amx_tile<kCode>(*a.format, a.tiles + tile * a.format->tile_bytes, *a.input, token, num_blocks,
                    y);
    const int64_t rows = a.num_rows - 16 * tile;
    for (int64_t t = 0; t < num_blocks * kBlockTokens; ++t) {
      const Floats row = load_floats(y[t / kBlockTokens].v[t % kBlockTokens]);
      store_floats(a.y + (token + t) * a.ldy + 16 * tile, row, rows < 16 ? rows : 16);
    }
  }
}

template <CodeKind kCode>
void amx_panel(const PanelArgs& a) {
  PanelArgs rest = a;
  if (a.input->rows == nullptr && a.format->group % kSubBlock == 0 &&
      a.token_end - a.token_begin >= kBlockTokens) {
    const TileConfig config = tile_config();
    finish_writes(&config);
    _tile_loadconfig(&config);
    while (rest.token_end - rest.token_begin >= kBlockTokens) {
      const int64_t blocks = (rest.token_end - rest.token_begin) / kBlockTokens;
      const int64_t now = blocks < kMaxBlocks ? blocks : kMaxBlocks;
      amx_blocks<kCode>(a, rest.token_begin, now);
      rest.token_begin += now * kBlockTokens;
    }
    _tile_release();
  }
  if (rest.token_begin < rest.token_end) integer_panel<kCode>(rest);
}

}  // namespace

void add_integer_panels_amx(MatmulKernels& kernels) {
  kernels.panel_integer[static_cast<int>(CodeKind::kInt8)] = amx_panel<CodeKind::kInt8>;
  kernels.panel_integer[static_cast<int>(CodeKind::kAffine4)] = amx_panel<CodeKind::kAffine4>;
  kernels.panel_integer[static_cast<int>(CodeKind::kCodebook4)] = amx_panel<CodeKind::kCodebook4>;
}

}  // namespace hotset::cpu
