// SPDX-License-Identifier: Apache-2.0
// Products of one tile with up to 16 tokens, for when weights are read once and latency counts: a
// warp takes whole groups of columns, several warps share a tile. Integer groups come out as the
// part of the CPU's chain that a group is; whoever has them all adds them in order. Float products
// (plain weights, and all weights in exact arithmetic) are sums in any order.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda/matmul_device.cuh"

namespace hotset::cuda {

// ── Integer ─────────────────────────────────────────────────────────────────────────────────────

// kTokens is 1, 8 or 16: fragments of 8 tokens, and with one token only the even ones of a lane's
// two are added up.
template <int kTokens>
inline constexpr int kFragments = (kTokens + 7) / 8;
template <int kTokens>
inline constexpr int kLaneTokens = kTokens == 1 ? 1 : 2;

// Where a lane finds the rounded input: token 8n + r for the products, 2c and 2c+1 for the sums.
template <int kTokens>
struct TokenInputs {
  const int8_t* q[kFragments<kTokens>];
  const float* meta[kFragments<kTokens>][kLaneTokens<kTokens>];
};

// Tokens past the last read the last one's; nobody takes their results.
template <int kTokens, typename RowOf>
__device__ inline TokenInputs<kTokens> token_inputs(const RoundedInput& in, RowOf row_of,
                                                    int lane) {
  TokenInputs<kTokens> inputs;
#pragma unroll
  for (int n = 0; n < kFragments<kTokens>; ++n) {
    inputs.q[n] = in.q_row(row_of(8 * n + lane / 4)) + 8 * (lane % 4);
#pragma unroll
    for (int i = 0; i < kLaneTokens<kTokens>; ++i) {
      inputs.meta[n][i] = in.meta_row(row_of(8 * n + 2 * (lane % 4) + i));
    }
  }
  return inputs;
}

// One group's part of the chain, d's layout: [n][i] is row 2r + i/2, token 8n + 2c + i%2.
template <int kTokens>
struct GroupPart {
  static constexpr int kEach = kLaneTokens<kTokens>;
  float sum[kFragments<kTokens>][4] = {};
  float input_sum[kFragments<kTokens>][kEach] = {};  // Σ scale · Σ q

  template <CodeKind kCode>
  __device__ void add(const LaneCodes<kCode>& codes, const CodebookTables& tables,
                      const TokenInputs<kTokens>& in, int sub) {
    const SubFragments<kCode> fragments(codes, tables);
#pragma unroll
    for (int n = 0; n < kFragments<kTokens>; ++n) {
      const uint2 q = *reinterpret_cast<const uint2*>(in.q[n] + kSubBlock * sub);
      float2 meta[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        meta[i] = *reinterpret_cast<const float2*>(in.meta[n][i] + 2 * sub);
      }
      float dot[4];
      fragments.dots(q, dot);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        sum[n][i] = __fmaf_rn(dot[i], meta[i].x, sum[n][i]);
        sum[n][2 + i] = __fmaf_rn(dot[2 + i], meta[i].x, sum[n][2 + i]);
        input_sum[n][i] = __fmaf_rn(meta[i].x, meta[i].y, input_sum[n][i]);
      }
    }
  }
  __device__ void take_off_zeros(const GroupRows& rows) {
#pragma unroll
    for (int n = 0; n < kFragments<kTokens>; ++n) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        sum[n][i] = __fmaf_rn(rows.minus_zero[0], input_sum[n][i], sum[n][i]);
        sum[n][2 + i] = __fmaf_rn(rows.minus_zero[1], input_sum[n][i], sum[n][2 + i]);
      }
    }
  }
};

// How the codes of a kind usually come: groups of whole batches (kBatch sub-blocks), and scales of
// 16 bits. Code for that has no conditions between its loads and products.
template <CodeKind kCode>
inline constexpr int kUsualBatch = kCode == CodeKind::kCodebook4 ? 2 : 4;
template <CodeKind kCode>
__device__ inline bool is_usual(const TileLayout& f) {
  return f.group % (kSubBlock * kUsualBatch<kCode>) == 0 &&
         (f.scale == ScaleKind::kF16 || f.scale == ScaleKind::kBF16);
}

// A warp's way through the codes of some tiles: groups first, first + stride, … of each. Codes come
// in batches, which are under way in registers while those before them are multiplied, over the end
// of a tile. A tile takes whole turns of kDepth batches, so that every batch of a turn has
// registers of its own.
template <CodeKind kCode, bool kUsual>
class CodeStream {
 public:
  static constexpr int kBatch = kUsual ? kUsualBatch<kCode> : 4;  // sub-blocks
  static constexpr int kDepth = 8 / kBatch;

  // Tiles lie `step` bytes apart.
  __device__ CodeStream(const TileLayout& f, const std::byte* tile, int64_t step, int num_tiles,
                        int first, int end, int stride, int lane)
      : f_(f),
        tile_(tile),
        step_(step),
        tiles_left_(num_tiles),
        first_(first),
        end_(end),
        stride_(stride),
        lane_(lane),
        group_(num_tiles > 0 ? first : end),
        used_group_(first) {
    per_group_ = batches_per_group(f);
    const int groups = first < end ? (end - first + stride - 1) / stride : 0;
    num_batches_ = groups * per_group_;
    num_turns_ = (num_batches_ + kDepth - 1) / kDepth;
#pragma unroll
    for (int d = 0; d < kDepth; ++d) fetch(slots_[d]);
  }

  [[nodiscard]] __device__ static int batches_per_group(const TileLayout& f) {
    return (f.subs_per_group + kBatch - 1) / kBatch;
  }
  // Of a tile.
  [[nodiscard]] __device__ int num_turns() const {
    return num_turns_;
  }

  // Turns from … to−1 of a tile: finish(group, its rows' scales, its parts) for each group that
  // ends in them. After the last turn the next one is the next tile's first.
  template <int kTokens, typename Finish>
  __device__ void run(int from, int to, const TokenInputs<kTokens>& in,
                      const CodebookTables& tables, Finish finish) {
    GroupPart<kTokens> part;
    StoredRows rows = {};
    for (int turn = from; turn < to; ++turn) {
      const bool last = turn + 1 == num_turns_;
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        Batch& batch = slots_[d];
        if (turn * kDepth + d < num_batches_) {
          if (used_ == 0) {
            part = {};
            rows = batch.rows;
          }
          multiply(batch, in, tables, part);
          if (++used_ == per_group_) {
            const GroupRows scales = scales_of(rows, tables);
            if (needs_zero<kCode>(f_)) part.take_off_zeros(scales);
            finish(used_group_, scales, part);
            used_ = 0;
            used_group_ += stride_;
          }
        }
        if (last && d == 0) go_to_next_tile();
        fetch(batch);
      }
      if (last) used_group_ = first_;
    }
  }

 private:
  struct Batch {
    LaneCodes<kCode> codes[kBatch];
    StoredRows rows;  // of a group's first batch
  };

  template <int kTokens>
  __device__ void multiply(const Batch& batch, const TokenInputs<kTokens>& in,
                           const CodebookTables& tables, GroupPart<kTokens>& part) const {
    const int sub = used_group_ * f_.subs_per_group + kBatch * used_;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (kUsual || kBatch * used_ + i < f_.subs_per_group) {
        part.template add<kCode>(batch.codes[i], tables, in, sub + i);
      }
    }
  }
  __device__ GroupRows scales_of(const StoredRows& rows, const CodebookTables& tables) const {
    if constexpr (kUsual) return usual_group_rows<kCode>(f_, rows, tables.step);
    return group_rows<kCode>(f_, rows, tables.step);
  }
  __device__ void fetch(Batch& batch) {
    if (group_ >= end_) return;
    const std::byte* block = tile_ + static_cast<int64_t>(group_) * f_.group_bytes;
    const std::byte* from = block + f_.codes_offset + fetched_ * (kBatch * kSubBytes<kCode>);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int steps = kUsual ? 4 : sub_steps(f_, kBatch * fetched_ + i);
      batch.codes[i] = load_codes<kCode>(from + i * kSubBytes<kCode>, steps, lane_);
    }
    if (fetched_ == 0) {
      batch.rows = kUsual ? load_usual_rows<kCode>(f_, block, lane_) : load_rows(f_, block, lane_);
    }
    if (++fetched_ == per_group_) {
      fetched_ = 0;
      group_ += stride_;
    }
  }
  __device__ void go_to_next_tile() {
    if (--tiles_left_ <= 0) return;
    tile_ += step_;
    group_ = first_;
  }

  const TileLayout& f_;
  const std::byte* tile_;
  int64_t step_;
  int tiles_left_;
  int first_;
  int end_;
  int stride_;
  int lane_;
  int per_group_;  // batches
  int num_batches_;
  int num_turns_;
  int group_;        // the next to fetch from,
  int fetched_ = 0;  // and how many of its batches are
  int used_group_;
  int used_ = 0;
  Batch slots_[kDepth];
};

// fn.operator()<kUsual>()
template <CodeKind kCode, typename Fn>
__device__ __forceinline__ void with_usual(const TileLayout& f, Fn fn) {
  if (is_usual<kCode>(f)) {
    fn.template operator()<true>();
  } else {
    fn.template operator()<false>();
  }
}

// finish(group, its rows' scales, its parts) for groups first, first + stride, … of a tile below
// `end`.
template <CodeKind kCode, int kTokens, typename Finish>
__device__ inline void for_groups(const TileLayout& f, const std::byte* tile,
                                  const TokenInputs<kTokens>& in, int first, int end, int stride,
                                  int lane, Finish finish) {
  const CodebookTables tables = load_tables<kCode>(f, lane);
  with_usual<kCode>(f, [&]<bool kUsual>() {
    CodeStream<kCode, kUsual> stream(f, tile, 0, 1, first, end, stride, lane);
    stream.run(0, stream.num_turns(), in, tables, finish);
  });
}

// ── Float ───────────────────────────────────────────────────────────────────────────────────────

__device__ inline float fp8_value(uint32_t byte) {
  const __half_raw half =
      __nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(byte & 0xffu), __NV_E4M3);
  return __half2float(__half(half));
}

// Four rows of a column of a plain kind, as stored.
template <CodeKind kCode>
struct FourRows {
  static constexpr int kBytes = kCode == CodeKind::kF32 ? 16 : kCode == CodeKind::kFp8 ? 4 : 8;
  using Word = std::conditional_t<kCode == CodeKind::kF32, uint4,
                                  std::conditional_t<kCode == CodeKind::kFp8, uint32_t, uint2>>;
  Word word = {};

  __device__ void load(const std::byte* at) { word = __ldcs(reinterpret_cast<const Word*>(at)); }
  __device__ void values(float (&v)[4]) const {
    if constexpr (kCode == CodeKind::kF32) {
      v[0] = __uint_as_float(word.x), v[1] = __uint_as_float(word.y);
      v[2] = __uint_as_float(word.z), v[3] = __uint_as_float(word.w);
    } else if constexpr (kCode == CodeKind::kBF16) {
      v[0] = __uint_as_float(word.x << 16), v[1] = __uint_as_float(word.x & 0xffff0000u);
      v[2] = __uint_as_float(word.y << 16), v[3] = __uint_as_float(word.y & 0xffff0000u);
    } else if constexpr (kCode == CodeKind::kF16) {
      v[0] = half_of(word.x), v[1] = half_of(word.x >> 16);
      v[2] = half_of(word.y), v[3] = half_of(word.y >> 16);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = fp8_value(word >> (8 * i));
    }
  }
  __device__ static float half_of(uint32_t bits) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits & 0xffffu)));
  }
};

// Column c of the packed order as the input has it; past the end it is a zero.
__device__ inline float input_at(const TileLayout& f, const int32_t* order, const float* x,
                                 int col) {
  if (col >= f.cols) return 0.0f;
  return x[order != nullptr ? order[col] : col];
}

// Steps first … end−1 (8 columns each) of a tile of a plain kind. Lane l has column l/4 of a step
// and rows 4·(l%4) … +3. Writes the warp's sums to out[t][row].
template <CodeKind kCode, int kT>
__device__ inline void plain_steps(const TileLayout& f, const std::byte* tile, int first, int end,
                                   const float* const (&x)[kT], const int32_t* order, int lane,
                                   float* out) {
  constexpr int kUnroll = kT == 1 ? 8 : 4;
  constexpr int kStepBytes = 32 * FourRows<kCode>::kBytes;
  const int per_group = f.group / 8;
  const int row = 4 * (lane % 4);
  float acc[kT][4] = {};
  for (int s = first; s < end;) {
    const int g = s / per_group;
    const int stop = min(end, (g + 1) * per_group);
    const std::byte* block = tile + static_cast<int64_t>(g) * f.group_bytes;
    const std::byte* codes = block + f.codes_offset + lane * FourRows<kCode>::kBytes;
    float part[kT][4] = {};
    for (; s < stop; s += kUnroll) {
      FourRows<kCode> rows[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (s + u < stop) {
          rows[u].load(codes + static_cast<int64_t>(s + u - g * per_group) * kStepBytes);
        }
      }
      float xs[kUnroll][kT];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
        for (int t = 0; t < kT; ++t) {
          xs[u][t] = s + u < stop ? input_at(f, order, x[t], 8 * (s + u) + lane / 4) : 0.0f;
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (s + u >= stop) break;
        float w[4];
        rows[u].values(w);
#pragma unroll
        for (int t = 0; t < kT; ++t) {
#pragma unroll
          for (int i = 0; i < 4; ++i) part[t][i] = __fmaf_rn(w[i], xs[u][t], part[t][i]);
        }
      }
    }
    s = stop;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float scale = scale_at(block, f.scale, row + i);
#pragma unroll
      for (int t = 0; t < kT; ++t) acc[t][i] = __fmaf_rn(part[t][i], scale, acc[t][i]);
    }
  }
#pragma unroll
  for (int t = 0; t < kT; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float sum = acc[t][i];
      for (int step = 4; step < kWarp; step *= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
      if (lane < 4) out[16 * t + row + i] = sum;
    }
  }
}

// The code of row `row`, column `col` of a step of 8 columns, before zero and scale.
template <CodeKind kCode>
__device__ inline float code_value(const TileLayout& f, const std::byte* step, int row, int col) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(step);
  if constexpr (kCode == CodeKind::kInt8) {
    return static_cast<float>(bytes[64 * (col / 4) + 4 * row + col % 4]);
  } else {
    const int byte = bytes[4 * row + col % 4];
    const int nibble = col < 4 ? byte & 15 : byte >> 4;
    if constexpr (kCode == CodeKind::kCodebook4) return f.codebook[nibble];
    return static_cast<float>(nibble);
  }
}

// The same for coded kinds, multiplied as floats: lane l has row l%16 of every other step.
template <CodeKind kCode, int kT>
__device__ inline void coded_steps(const TileLayout& f, const std::byte* tile, int first, int end,
                                   const float* const (&x)[kT], const int32_t* order, int lane,
                                   float* out) {
  constexpr int kStepBytes = kCode == CodeKind::kInt8 ? 128 : 64;
  const int per_group = f.group / 8, row = lane % 16;
  float acc[kT] = {};
  for (int s = first + lane / 16; s < end; s += 2) {
    const int g = s / per_group;
    const std::byte* block = tile + static_cast<int64_t>(g) * f.group_bytes;
    const std::byte* step =
        block + f.codes_offset + static_cast<int64_t>(s - g * per_group) * kStepBytes;
    const float zero = kCode == CodeKind::kCodebook4 ? 0.0f : zero_at(f, block, row);
    const float scale = scale_at(block, f.scale, row);
    float part[kT] = {};
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      const float w = code_value<kCode>(f, step, row, c) - zero;
#pragma unroll
      for (int t = 0; t < kT; ++t) {
        part[t] = __fmaf_rn(w, input_at(f, order, x[t], 8 * s + c), part[t]);
      }
    }
#pragma unroll
    for (int t = 0; t < kT; ++t) acc[t] = __fmaf_rn(part[t], scale, acc[t]);
  }
#pragma unroll
  for (int t = 0; t < kT; ++t) {
    const float sum = acc[t] + __shfl_xor_sync(kAllLanes, acc[t], 16);
    if (lane < 16) out[16 * t + row] = sum;
  }
}

// Kernels are compiled for all kinds, and again for the few that come together most, which then
// need fewer registers. A set has a bit a kind, and a second one for its integer products.
using Kinds = uint32_t;
HS_BOTH constexpr Kinds kind_bit(CodeKind code, bool integer) {
  return Kinds{1} << (static_cast<int>(code) + (integer ? 8 : 0));
}
inline constexpr Kinds kAllKinds = ~Kinds{0};

// fn.operator()<kCode>() of a kind of the set known only now.
template <Kinds kKinds, bool kInteger, CodeKind kCode, typename Fn>
__device__ __forceinline__ void if_code(CodeKind code, Fn& fn) {
  if constexpr ((kKinds & kind_bit(kCode, kInteger)) != 0) {
    if (code == kCode) fn.template operator()<kCode>();
  }
}
template <Kinds kKinds, typename Fn>
__device__ __forceinline__ void with_float_code(CodeKind code, Fn fn) {
  if_code<kKinds, false, CodeKind::kF32>(code, fn);
  if_code<kKinds, false, CodeKind::kF16>(code, fn);
  if_code<kKinds, false, CodeKind::kBF16>(code, fn);
  if_code<kKinds, false, CodeKind::kFp8>(code, fn);
  if_code<kKinds, false, CodeKind::kInt8>(code, fn);
  if_code<kKinds, false, CodeKind::kAffine4>(code, fn);
  if_code<kKinds, false, CodeKind::kCodebook4>(code, fn);
}
template <Kinds kKinds, typename Fn>
__device__ __forceinline__ void with_integer_code(CodeKind code, Fn fn) {
  if_code<kKinds, true, CodeKind::kAffine4>(code, fn);
  if_code<kKinds, true, CodeKind::kInt8>(code, fn);
  if_code<kKinds, true, CodeKind::kCodebook4>(code, fn);
}
template <Kinds kKinds>
inline constexpr bool kHasFloats = (kKinds & 0xff) != 0;

// One warp's share of a tile's columns, as floats: share `part` of `num_parts`.
template <Kinds kKinds, int kT>
__device__ inline void float_share(const TileLayout& f, const std::byte* tile, int part,
                                   int num_parts, const float* const (&x)[kT], const int32_t* order,
                                   int lane, float* out) {
  const int steps = (f.cols + 7) / 8;
  const int first = steps * part / num_parts, end = steps * (part + 1) / num_parts;
  with_float_code<kKinds>(f.code, [&]<CodeKind kCode>() {
    if constexpr (kCode == CodeKind::kInt8 || kCode == CodeKind::kAffine4 ||
                  kCode == CodeKind::kCodebook4) {
      coded_steps<kCode, kT>(f, tile, first, end, x, order, lane, out);
    } else {
      plain_steps<kCode, kT>(f, tile, first, end, x, order, lane, out);
    }
  });
}

}  // namespace hotset::cuda
