// SPDX-License-Identifier: Apache-2.0
// What each format's packer needs, read and handed over in pieces small enough to stay in cache on
// their way: whole tiles where rows are contiguous, whole column groups where GPTQ and AWQ
// interleave rows.
#include "checkpoint/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "checkpoint/bnb_state.h"
#include "checkpoint/column_order.h"
#include "checkpoint/finite_scales.h"
#include "checkpoint/stored_kind.h"
#include "quant/awq.h"
#include "quant/bitsandbytes.h"
#include "quant/compressed_tensors.h"
#include "quant/fp8.h"
#include "quant/gptq.h"
#include "quant/transpose.h"

namespace hotset {
namespace {

constexpr int64_t kPieceBytes = int64_t{256} << 10;
constexpr int64_t kPartBytes = int64_t{4} << 20;

Status read_into(const Checkpoint& checkpoint, const TensorInfo& tensor, PackBuffer& to) {
  return checkpoint.read(tensor, to.room(tensor.bytes));
}

template <typename T>
Result<std::vector<T>> read_values(const Checkpoint& checkpoint, const TensorInfo& tensor) {
  std::vector<T> values(static_cast<size_t>(tensor.bytes) / sizeof(T));
  HS_RETURN_IF_ERROR(checkpoint.read(tensor, std::as_writable_bytes(std::span(values))));
  return values;
}

// One linear, or a part of it, on its way: what every packer below is given.
struct Packing {
  const Checkpoint& checkpoint;
  const LinearSource& source;
  const PackedShape& shape;
  std::byte* dst;
  PackScratch& scratch;
  PackAux& aux;
  int64_t first_tile = 0;  // of this part
  int64_t end_tile = 0;

  // Calls pack(first_tile, num_tiles, bytes) for pieces of whole tiles of a tensor whose rows are
  // `row_bytes` long; a status that pack() returns ends it.
  template <typename Fn>
  Status for_tiles(int64_t row_bytes, Fn pack) {
    const int64_t tiles = std::max<int64_t>(1, kPieceBytes / (row_bytes * kTileRows));
    for (int64_t tile = first_tile; tile < end_tile; tile += tiles) {
      const int64_t row = tile * kTileRows;
      const int64_t rows = std::min(std::min(tile + tiles, end_tile) * kTileRows, shape.rows) - row;
      const std::span<std::byte> bytes = scratch.weight.room(rows * row_bytes);
      HS_RETURN_IF_ERROR(
          checkpoint.read_range(*source.weight, (source.row_begin + row) * row_bytes, bytes));
      if constexpr (std::is_void_v<decltype(pack(tile, rows, bytes.data()))>) {
        pack(tile, ceil_div(rows, kTileRows), bytes.data());
      } else {
        HS_RETURN_IF_ERROR(pack(tile, ceil_div(rows, kTileRows), bytes.data()));
      }
    }
    return {};
  }

  // Calls pack(first_group, num_groups, bytes) for pieces of whole column groups of a tensor that
  // holds `line_bytes` for every `line_cols` columns.
  template <typename Fn>
  Status for_groups(int64_t line_cols, int64_t line_bytes, Fn pack) {
    const int64_t group_bytes = shape.group / line_cols * line_bytes;
    const int64_t groups = std::max<int64_t>(1, kPieceBytes / group_bytes);
    for (int64_t g = 0; g < shape.num_groups(); g += groups) {
      const int64_t count = std::min(groups, shape.num_groups() - g);
      const int64_t at = g * group_bytes;
      const std::span<std::byte> bytes =
          scratch.weight.room(std::min(count * group_bytes, source.weight->bytes - at));
      HS_RETURN_IF_ERROR(checkpoint.read_range(*source.weight, at, bytes));
      pack(g, count, bytes.data());
    }
    return {};
  }
};

void transpose_rows(const PackedShape& shape, const std::byte* from, int64_t first_tile,
                    int64_t num_tiles, std::byte* dst) {
  const int64_t value_bytes = code_bits(shape.code) / 8;
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    const int64_t lanes = std::min<int64_t>(kTileRows, shape.rows - tile * kTileRows);
    std::byte* to = dst + tile * shape.tile_bytes();
    if (value_bytes == 4) {
      transpose_tile<uint32_t>(from, shape.cols, lanes, shape.cols, shape.padded_cols(), to);
    } else {
      transpose_tile<uint16_t>(from, shape.cols, lanes, shape.cols, shape.padded_cols(), to);
    }
    from += lanes * shape.cols * value_bytes;
  }
}

Status pack_plain(Packing& p) {
  const CodeKind stored = stored_code(p.source.weight->dtype);
  const int64_t row_bytes = p.shape.cols * code_bits(stored) / 8;
  const bool requantise = p.shape.code == CodeKind::kInt8;
  return p.for_tiles(
      row_bytes, [&](int64_t tile, int64_t num_tiles, const std::byte* bytes) -> Status {
        if (!requantise) {
          transpose_rows(p.shape, bytes, tile, num_tiles, p.dst);
          return {};
        }
        pack_int8(p.shape, stored, bytes, tile, num_tiles, p.dst, p.aux.loss);
        if (p.aux.loss.representable()) return {};
        return fail(fmt::format(
            "tensor '{}': a weight of {:.3g} among rows {} … {} cannot be held at 8 bits (up to "
            "{:.3g} can); load this model without 8-bit dense modules",
            p.source.weight->name, p.aux.loss.max_weight, tile * kTileRows,
            std::min((tile + num_tiles) * kTileRows, p.shape.rows) - 1, kLargestInt8Weight));
      });
}

Status uneven(const LinearSource& source) {
  return fail(fmt::format("tensor '{}': groups of uneven size, though desc_act is false",
                          source.g_idx->name));
}

// v1 stores z−1. A symmetric file without a stated version tells by its words which one it is.
Status settle_zeros(const LinearSource& source, GptqWeights& weights) {
  weights.zero_offset = source.scheme.zeros_minus_one ? 1 : 0;
  if (!source.scheme.symmetric) return {};
  const uint32_t zero = source.scheme.bits == 8 ? 128 : 8;
  auto other = find_other_zero(weights, source.rows, zero);
  if (other && !source.scheme.format_stated) {
    weights.zero_offset = 1 - weights.zero_offset;
    other = find_other_zero(weights, source.rows, zero);
  }
  if (!other) return {};
  return fail(fmt::format(
      "tensor '{}': the zero of group {}, output {} is not {}, though the config says sym",
      source.zeros->name, *other / source.rows, *other % source.rows, zero));
}

// Tiles of rows that dequantize(row, out) makes, as fp32.
template <typename Fn>
void widen_tiles(Packing& p, Fn dequantize) {
  const auto cols = static_cast<size_t>(p.shape.cols);
  p.scratch.floats.resize(cols * kTileRows);
  for (int64_t row = 0; row < p.shape.rows; row += kTileRows) {
    const int64_t rows = std::min<int64_t>(kTileRows, p.shape.rows - row);
    for (int64_t r = 0; r < rows; ++r) {
      dequantize(row + r, std::span(p.scratch.floats).subspan(static_cast<size_t>(r) * cols, cols));
    }
    pack_rows(p.shape, p.scratch.floats.data(), row, rows, p.dst);
  }
}

Status read_scales(Packing& p) {
  const TensorInfo& scales = *p.source.scales;
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, scales, p.scratch.scales));
  return check_finite_scales(scales, std::span<const std::byte>(p.scratch.scales.data(),
                                                                static_cast<size_t>(scales.bytes)));
}

Status pack_gptq_linear(Packing& p) {
  HS_RETURN_IF_ERROR(read_scales(p));
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.zeros, p.scratch.zeros));
  const bool widen = p.shape.code == CodeKind::kF32;
  HS_ASSIGN_OR_RETURN(ColumnOrder order,
                      column_order(p.checkpoint, p.source, widen ? 0 : p.shape.group));
  GptqWeights weights{.bits = p.source.scheme.bits,
                      .num_groups = ceil_div(p.source.cols, p.source.group_size),
                      .qzeros = p.scratch.zeros.data(),
                      .scales = p.scratch.scales.data()};
  HS_RETURN_IF_ERROR(settle_zeros(p.source, weights));
  if (!widen && !order.expressible) return uneven(p.source);
  if (!widen && order.order.empty()) {
    return p.for_groups(32 / weights.bits, 4 * p.shape.rows,
                        [&](int64_t first, int64_t count, const std::byte* bytes) {
                          weights.qweight = bytes;
                          pack_gptq(p.shape, weights, order.block_group, {}, first, count, p.dst);
                        });
  }
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.weight, p.scratch.weight));
  weights.qweight = p.scratch.weight.data();
  if (widen) {
    const ScaleKind scale = stored_scale(p.source.scales->dtype);
    widen_tiles(p, [&](int64_t row, std::span<float> out) {
      dequantize_gptq_row(weights, scale, p.shape.rows, order.g_idx, row, out);
    });
    return {};
  }
  pack_gptq(p.shape, weights, order.block_group, order.order, 0, p.shape.num_groups(), p.dst);
  p.aux.input_order = std::move(order.order);
  return {};
}

Status pack_awq_linear(Packing& p) {
  HS_RETURN_IF_ERROR(read_scales(p));
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.zeros, p.scratch.zeros));
  AwqWeights weights{.format_group = p.source.group_size,
                     .qzeros = p.scratch.zeros.data(),
                     .scales = p.scratch.scales.data()};
  if (p.shape.code != CodeKind::kF32) {
    return p.for_groups(1, p.shape.rows / 2,
                        [&](int64_t first, int64_t count, const std::byte* bytes) {
                          weights.qweight = bytes;
                          pack_awq(p.shape, weights, first, count, p.dst);
                        });
  }
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.weight, p.scratch.weight));
  weights.qweight = p.scratch.weight.data();
  const ScaleKind scale = stored_scale(p.source.scales->dtype);
  widen_tiles(p, [&](int64_t row, std::span<float> out) {
    dequantize_awq_row(weights, scale, p.shape.rows, row, out);
  });
  return {};
}

// weight_shape repeats the true [out, in].
Status check_weight_shape(const Packing& p) {
  HS_ASSIGN_OR_RETURN(const std::vector<int64_t> shape,
                      read_values<int64_t>(p.checkpoint, *p.source.state));
  if (shape[0] == p.source.rows && shape[1] == p.source.cols) return {};
  return fail(fmt::format("tensor '{}': says {}, expected {}", p.source.state->name,
                          shape_text(shape), shape_text(std::array{p.source.rows, p.source.cols})));
}

// Rows of a piece, dequantised one by one by fn(row of the matrix, bytes of the row, out).
template <typename Fn>
void widen_rows(Packing& p, int64_t first_tile, int64_t num_tiles, const std::byte* bytes,
                int64_t row_bytes, Fn fn) {
  const int64_t row0 = first_tile * kTileRows;
  const int64_t rows = std::min(num_tiles * kTileRows, p.shape.rows - row0);
  const auto cols = static_cast<size_t>(p.shape.cols);
  p.scratch.floats.resize(static_cast<size_t>(rows) * cols);
  for (int64_t r = 0; r < rows; ++r) {
    fn(row0 + r, bytes + r * row_bytes,
       std::span(p.scratch.floats).subspan(static_cast<size_t>(r) * cols, cols));
  }
  pack_rows(p.shape, p.scratch.floats.data(), row0, rows, p.dst);
}

Status pack_compressed_linear(Packing& p) {
  HS_RETURN_IF_ERROR(check_weight_shape(p));
  HS_RETURN_IF_ERROR(read_scales(p));
  if (p.source.zeros != nullptr)
    HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.zeros, p.scratch.zeros));
  const bool widen = p.shape.code == CodeKind::kF32;
  HS_ASSIGN_OR_RETURN(ColumnOrder order,
                      column_order(p.checkpoint, p.source, widen ? 0 : p.shape.group));
  if (!widen && !order.expressible) return uneven(p.source);
  CompressedWeights weights{.bits = p.source.scheme.bits,
                            .num_groups = ceil_div(p.source.cols, p.source.group_size),
                            .scales = p.scratch.scales.data(),
                            .zeros = p.source.zeros != nullptr ? p.scratch.zeros.data() : nullptr};
  const int64_t row_bytes = 4 * ceil_div(p.shape.cols * weights.bits, 32);
  HS_RETURN_IF_ERROR(
      p.for_tiles(row_bytes, [&](int64_t tile, int64_t num_tiles, const std::byte* bytes) {
        weights.packed = bytes;
        if (!widen) {
          pack_compressed(p.shape, weights, order.block_group, order.order, tile, num_tiles, p.dst);
          return;
        }
        widen_rows(p, tile, num_tiles, bytes, row_bytes,
                   [&](int64_t row, const std::byte* packed, std::span<float> out) {
                     dequantize_compressed_row(weights, stored_scale(p.source.scales->dtype),
                                               order.g_idx, packed, row, out);
                   });
      }));
  p.aux.input_order = std::move(order.order);
  return {};
}

Result<std::vector<float>> read_absmax(const Packing& p) {
  if (p.source.nested_scales == nullptr) return read_values<float>(p.checkpoint, *p.source.scales);
  HS_ASSIGN_OR_RETURN(const BnbState state, read_bnb_state(p.checkpoint, *p.source.state));
  HS_ASSIGN_OR_RETURN(const auto codes, read_values<uint8_t>(p.checkpoint, *p.source.scales));
  HS_ASSIGN_OR_RETURN(const auto map, read_values<float>(p.checkpoint, *p.source.nested_codebook));
  HS_ASSIGN_OR_RETURN(const auto nested, read_values<float>(p.checkpoint, *p.source.nested_scales));
  std::vector<float> absmax(codes.size());
  expand_nested_absmax(codes, map, nested, state.nested_blocksize, state.nested_offset, absmax);
  return absmax;
}

// As the packed form has them.
Result<std::span<const std::byte>> codebook_scales(Packing& p, const std::vector<float>& absmax) {
  if (p.shape.scale == ScaleKind::kF32) return std::as_bytes(std::span(absmax));
  const auto count = static_cast<int64_t>(absmax.size());
  const std::span<std::byte> halves = p.scratch.scales.room(count * int64_t{sizeof(uint16_t)});
  const float most = pack_loops().halve(absmax.data(), count, kBnbHalfFactor,
                                        reinterpret_cast<uint16_t*>(halves.data())) /
                     kBnbHalfFactor;
  if (most <= kLargestBnbHalf) return halves;
  return fail(
      fmt::format("tensor '{}': a scale of {:.6g} cannot be held in 16 bits (up to {:.6g} "
                  "can); load this model with exact arithmetic",
                  p.source.scales->name, most, kLargestBnbHalf));
}

Status pack_bitsandbytes_linear(Packing& p) {
  HS_ASSIGN_OR_RETURN(const std::vector<float> absmax, read_absmax(p));
  HS_RETURN_IF_ERROR(check_finite_scales(*p.source.scales, std::span<const float>(absmax)));
  HS_ASSIGN_OR_RETURN(const auto codebook, read_values<float>(p.checkpoint, *p.source.codebook));
  if (!std::all_of(codebook.begin(), codebook.end(), [](float v) { return std::isfinite(v); })) {
    return fail(fmt::format("tensor '{}': an entry is not finite", p.source.codebook->name));
  }
  const int64_t block = p.source.group_size;
  if (p.shape.code != CodeKind::kF32) {
    HS_ASSIGN_OR_RETURN(const std::span<const std::byte> scales, codebook_scales(p, absmax));
    const float factor = p.shape.scale == ScaleKind::kF16 ? kBnbHalfFactor : 1.0f;
    for (size_t i = 0; i < codebook.size(); ++i) p.aux.codebook[i] = codebook[i] / factor;
    return p.for_tiles(p.shape.cols / 2,
                       [&](int64_t tile, int64_t num_tiles, const std::byte* bytes) {
                         pack_bitsandbytes(p.shape, bytes, scales, block, tile, num_tiles, p.dst);
                       });
  }
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.weight, p.scratch.weight));
  widen_rows(p, 0, p.shape.num_tiles(), p.scratch.weight.data(), 0,
             [&](int64_t row, const std::byte* all, std::span<float> out) {
               dequantize_bitsandbytes(all, absmax, codebook, block, row * p.shape.cols, out);
             });
  return {};
}

Status pack_fp8_linear(Packing& p) {
  HS_RETURN_IF_ERROR(read_scales(p));
  Fp8Weights weights{.scales = p.scratch.scales.data(),
                     .block_rows = p.source.block_rows,
                     .block_cols = p.source.group_size};
  return p.for_tiles(p.shape.cols, [&](int64_t tile, int64_t num_tiles, const std::byte* bytes) {
    weights.codes = bytes;
    if (p.shape.code != CodeKind::kF32) {
      pack_fp8(p.shape, weights, tile, num_tiles, p.dst);
      return;
    }
    widen_rows(p, tile, num_tiles, bytes, p.shape.cols,
               [&](int64_t row, const std::byte* codes, std::span<float> out) {
                 dequantize_fp8_row(weights, stored_scale(p.source.scales->dtype), codes, row, out);
               });
  });
}

// Only formats that are read forward row by row and have next to nothing beside their rows: what a
// part of another one would have to read again costs more than waiting for it.
int64_t tiles_per_part(const LinearSource& source, const PackedShape& shape) {
  const bool splits = source.format == LinearFormat::kPlain ||
                      (source.format == LinearFormat::kFp8 && shape.code == CodeKind::kFp8);
  if (!splits) return shape.num_tiles();
  const int64_t row_bytes = shape.cols * dtype_bits(source.weight->dtype) / 8;
  return std::max<int64_t>(1, kPartBytes / (row_bytes * kTileRows));
}

}  // namespace

double PackLoss::relative_max() const {
  return max_weight > 0 ? max_error / max_weight : 0;
}

double PackLoss::relative_rms() const {
  return sum_square_weight > 0 ? std::sqrt(sum_square_error / sum_square_weight) : 0;
}

void PackLoss::add(const PackLoss& other) {
  max_error = std::max(max_error, other.max_error);
  max_weight = std::max(max_weight, other.max_weight);
  sum_square_error += other.sum_square_error;
  sum_square_weight += other.sum_square_weight;
}

int64_t num_pack_parts(const LinearSource& source, const PackPlan& plan) {
  return ceil_div(plan.shape.num_tiles(), tiles_per_part(source, plan.shape));
}

Status pack_linear_part(const Checkpoint& checkpoint, const LinearSource& source,
                        const PackPlan& plan, int64_t part, std::span<std::byte> dst,
                        PackScratch& scratch, PackAux& aux) {
  HS_CHECK(static_cast<int64_t>(dst.size()) == plan.shape.bytes(), "{}: {} bytes for {}",
           source.module, dst.size(), plan.shape.bytes());
  aux = {};
  const int64_t tiles = tiles_per_part(source, plan.shape);
  Packing packing{.checkpoint = checkpoint,
                  .source = source,
                  .shape = plan.shape,
                  .dst = dst.data(),
                  .scratch = scratch,
                  .aux = aux,
                  .first_tile = part * tiles,
                  .end_tile = std::min((part + 1) * tiles, plan.shape.num_tiles())};
  switch (source.format) {
    case LinearFormat::kPlain:
      return pack_plain(packing);
    case LinearFormat::kGptq:
      return pack_gptq_linear(packing);
    case LinearFormat::kAwq:
      return pack_awq_linear(packing);
    case LinearFormat::kCompressed:
      return pack_compressed_linear(packing);
    case LinearFormat::kBitsandbytes:
      return pack_bitsandbytes_linear(packing);
    case LinearFormat::kFp8:
      return pack_fp8_linear(packing);
  }
  return fail(fmt::format("'{}': unknown format", source.module), ErrorKind::kInternal);
}

Status pack_linear(const Checkpoint& checkpoint, const LinearSource& source, const PackPlan& plan,
                   std::span<std::byte> dst, PackScratch& scratch, PackAux& aux) {
  aux = {};
  for (int64_t part = 0; part < num_pack_parts(source, plan); ++part) {
    PackAux one;
    HS_RETURN_IF_ERROR(pack_linear_part(checkpoint, source, plan, part, dst, scratch, one));
    aux.join(std::move(one));
  }
  return {};
}

void PackAux::join(PackAux&& next_part) {
  codebook = next_part.codebook;
  input_order = std::move(next_part.input_order);
  loss.add(next_part.loss);
}

std::span<std::byte> PackBuffer::room(int64_t bytes) {
  if (bytes > size_) {
    constexpr size_t kAlignment = 4096;
    const auto padded = static_cast<size_t>(round_up(bytes, int64_t{kAlignment}));
    data_.reset(static_cast<std::byte*>(::operator new (padded, std::align_val_t{kAlignment})));
    size_ = static_cast<int64_t>(padded);
  }
  return {data_.get(), static_cast<size_t>(bytes)};
}

PackedMatrix packed_view(const PackPlan& plan, const std::byte* data, const PackAux& aux) {
  PackedMatrix matrix;
  static_cast<PackedShape&>(matrix) = plan.shape;
  matrix.data = data;
  if (plan.shape.code == CodeKind::kCodebook4) matrix.codebook = aux.codebook.data();
  if (!aux.input_order.empty()) matrix.input_order = aux.input_order.data();
  return matrix;
}

}  // namespace hotset
