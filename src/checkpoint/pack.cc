// SPDX-License-Identifier: Apache-2.0
// What each format's packer needs, read and handed over. Formats whose rows are contiguous are read
// in pieces of about a megabyte, so that scratch stays small and in cache; GPTQ and AWQ interleave
// rows and are read whole.
#include "checkpoint/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/float16.h"
#include "checkpoint/bnb_state.h"
#include "quant/awq.h"
#include "quant/bitsandbytes.h"
#include "quant/compressed_tensors.h"
#include "quant/fp8.h"
#include "quant/gptq.h"
#include "quant/transpose.h"

namespace hotset {
namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 20;

ScaleKind scale_kind(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return ScaleKind::kF16;
    case DType::kBF16:
      return ScaleKind::kBF16;
    default:
      return ScaleKind::kF32;
  }
}

CodeKind plain_code(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return CodeKind::kF16;
    case DType::kBF16:
      return CodeKind::kBF16;
    default:
      return CodeKind::kF32;
  }
}

Status read_into(const Checkpoint& checkpoint, const TensorInfo& tensor,
                 std::vector<std::byte>& to) {
  to.resize(static_cast<size_t>(tensor.bytes));
  return checkpoint.read(tensor, to);
}

template <typename T>
Result<std::vector<T>> read_values(const Checkpoint& checkpoint, const TensorInfo& tensor) {
  std::vector<T> values(static_cast<size_t>(tensor.bytes) / sizeof(T));
  HS_RETURN_IF_ERROR(checkpoint.read(tensor, std::as_writable_bytes(std::span(values))));
  return values;
}

int64_t num_scale_groups(const LinearSource& source) {
  return ceil_div(source.cols, source.group_size);
}

// The group of every input: g_idx where there is one, else inputs in order.
Result<std::vector<int32_t>> read_groups(const Checkpoint& checkpoint, const LinearSource& source) {
  const auto groups = static_cast<int32_t>(num_scale_groups(source));
  if (source.g_idx == nullptr) {
    std::vector<int32_t> in_order(static_cast<size_t>(source.cols));
    for (size_t i = 0; i < in_order.size(); ++i) {
      in_order[i] = static_cast<int32_t>(static_cast<int64_t>(i) / source.group_size);
    }
    return in_order;
  }
  HS_ASSIGN_OR_RETURN(std::vector<int32_t> g_idx, read_values<int32_t>(checkpoint, *source.g_idx));
  // Minus one everywhere means "not reordered" in compressed-tensors.
  if (std::all_of(g_idx.begin(), g_idx.end(), [](int32_t g) { return g == -1; })) {
    LinearSource plain = source;
    plain.g_idx = nullptr;
    return read_groups(checkpoint, plain);
  }
  const auto bad =
      std::find_if(g_idx.begin(), g_idx.end(), [&](int32_t g) { return g < 0 || g >= groups; });
  if (bad != g_idx.end()) {
    return fail(fmt::format("tensor '{}': entry {} is {}, outside {} groups", source.g_idx->name,
                            bad - g_idx.begin(), *bad, groups));
  }
  return g_idx;
}

// How packed columns follow from the inputs' groups.
struct ColumnOrder {
  std::vector<int32_t> g_idx;
  std::vector<int32_t> order;        // empty: identity
  std::vector<int32_t> block_group;  // stored group of each packed group
  bool expressible = false;
};

Result<ColumnOrder> column_order(const Checkpoint& checkpoint, const LinearSource& source,
                                 int64_t group) {
  ColumnOrder out;
  HS_ASSIGN_OR_RETURN(out.g_idx, read_groups(checkpoint, source));
  if (group == 0) return out;
  if (!std::is_sorted(out.g_idx.begin(), out.g_idx.end())) {
    out.order.resize(out.g_idx.size());
    sort_by_group(out.g_idx, num_scale_groups(source), out.order);
  }
  out.block_group.resize(static_cast<size_t>(ceil_div(source.cols, group)));
  out.expressible = uniform_groups(out.g_idx, out.order, group, out.block_group);
  return out;
}

PackPlan widened(const LinearSource& source, std::string why) {
  return {plain_shape(CodeKind::kF32, source.rows, source.cols),
          fmt::format("held as fp32: {}", why)};
}

// GPTQ, AWQ and compressed-tensors.
Result<PackPlan> plan_affine(const Checkpoint& checkpoint, const LinearSource& source) {
  const bool eight = source.scheme.bits == 8;
  const int64_t group = kernel_group(source.group_size, source.cols);
  if (group == 0) return widened(source, fmt::format("groups of {} columns", source.group_size));
  if (source.g_idx != nullptr && source.scheme.desc_act) {
    HS_ASSIGN_OR_RETURN(const ColumnOrder order, column_order(checkpoint, source, group));
    if (!order.expressible) return widened(source, "its g_idx makes groups of uneven size");
  }
  const bool constant_zero =
      source.format == LinearFormat::kGptq ? source.scheme.symmetric : source.zeros == nullptr;
  return PackPlan{{.code = eight ? CodeKind::kInt8 : CodeKind::kAffine4,
                   .scale = scale_kind(source.scales->dtype),
                   .has_zeros = !constant_zero,
                   .zero = static_cast<uint8_t>(eight ? 128 : 8),
                   .rows = source.rows,
                   .cols = source.cols,
                   .group = group},
                  {}};
}

Result<PackPlan> plan_codebook(const LinearSource& source) {
  const int64_t group = bnb_kernel_group(source.group_size, source.cols);
  if (group == 0) {
    return widened(
        source, fmt::format("blocks of {} run across rows of {}", source.group_size, source.cols));
  }
  return PackPlan{{.code = CodeKind::kCodebook4,
                   .scale = ScaleKind::kF32,
                   .rows = source.rows,
                   .cols = source.cols,
                   .group = group},
                  {}};
}

Result<PackPlan> plan_fp8(const LinearSource& source) {
  const int64_t group = kernel_group(source.group_size, source.cols);
  if (group == 0)
    return widened(source, fmt::format("scale blocks of {} columns", source.group_size));
  return PackPlan{{.code = CodeKind::kFp8,
                   .scale = scale_kind(source.scales->dtype),
                   .rows = source.rows,
                   .cols = source.cols,
                   .group = group},
                  {}};
}

// One linear on its way: what every packer below is given.
struct Packing {
  const Checkpoint& checkpoint;
  const LinearSource& source;
  const PackedShape& shape;
  std::byte* dst;
  PackScratch& scratch;
  PackAux& aux;

  // Calls pack(first_tile, num_tiles, bytes) for pieces of whole tiles of a tensor whose rows are
  // `row_bytes` long.
  template <typename Fn>
  Status for_pieces(int64_t row_bytes, Fn pack) {
    const int64_t tiles = std::max<int64_t>(1, kPieceBytes / (row_bytes * kTileRows));
    for (int64_t tile = 0; tile < shape.num_tiles(); tile += tiles) {
      const int64_t row = tile * kTileRows;
      const int64_t rows = std::min(tiles * kTileRows, shape.rows - row);
      scratch.weight.resize(static_cast<size_t>(rows * row_bytes));
      HS_RETURN_IF_ERROR(checkpoint.read_range(*source.weight, (source.row_begin + row) * row_bytes,
                                               scratch.weight));
      pack(tile, ceil_div(rows, kTileRows), scratch.weight.data());
    }
    return {};
  }
};

void widen_values(DType dtype, const std::byte* from, std::span<float> to) {
  if (dtype == DType::kF32) {
    std::memcpy(to.data(), from, to.size() * sizeof(float));
    return;
  }
  for (size_t i = 0; i < to.size(); ++i) {
    uint16_t half = 0;
    std::memcpy(&half, from + 2 * i, 2);
    to[i] = dtype == DType::kF16 ? half_to_float(half) : bf16_to_float(half);
  }
}

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
  const DType dtype = p.source.weight->dtype;
  const int64_t row_bytes = p.shape.cols * dtype_bits(dtype) / 8;
  return p.for_pieces(row_bytes, [&](int64_t tile, int64_t num_tiles, const std::byte* bytes) {
    if (p.shape.code != CodeKind::kInt8) {
      transpose_rows(p.shape, bytes, tile, num_tiles, p.dst);
      return;
    }
    p.scratch.floats.resize(p.scratch.weight.size() * 8 / static_cast<size_t>(dtype_bits(dtype)));
    widen_values(dtype, bytes, p.scratch.floats);
    pack_int8(p.shape, p.scratch.floats.data(), tile, num_tiles, p.dst, p.aux.loss);
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

Status pack_gptq_linear(Packing& p) {
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.weight, p.scratch.weight));
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.scales, p.scratch.scales));
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.zeros, p.scratch.zeros));
  const bool widen = p.shape.code == CodeKind::kF32;
  HS_ASSIGN_OR_RETURN(ColumnOrder order,
                      column_order(p.checkpoint, p.source, widen ? 0 : p.shape.group));
  GptqWeights weights{.bits = p.source.scheme.bits,
                      .num_groups = num_scale_groups(p.source),
                      .qweight = p.scratch.weight.data(),
                      .qzeros = p.scratch.zeros.data(),
                      .scales = p.scratch.scales.data()};
  HS_RETURN_IF_ERROR(settle_zeros(p.source, weights));
  if (widen) {
    p.scratch.floats.resize(static_cast<size_t>(p.shape.cols * kTileRows));
    for (int64_t row = 0; row < p.shape.rows; row += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, p.shape.rows - row);
      for (int64_t r = 0; r < rows; ++r) {
        dequantize_gptq_row(
            weights, scale_kind(p.source.scales->dtype), p.shape.rows, order.g_idx, row + r,
            std::span(p.scratch.floats)
                .subspan(static_cast<size_t>(r * p.shape.cols), static_cast<size_t>(p.shape.cols)));
      }
      pack_rows(p.shape, p.scratch.floats.data(), row, rows, p.dst);
    }
    return {};
  }
  if (!order.expressible) return uneven(p.source);
  pack_gptq(p.shape, weights, order.block_group, order.order, p.dst);
  p.aux.input_order = std::move(order.order);
  return {};
}

Status pack_awq_linear(Packing& p) {
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.weight, p.scratch.weight));
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.scales, p.scratch.scales));
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.zeros, p.scratch.zeros));
  const AwqWeights weights{.format_group = p.source.group_size,
                           .qweight = p.scratch.weight.data(),
                           .qzeros = p.scratch.zeros.data(),
                           .scales = p.scratch.scales.data()};
  if (p.shape.code != CodeKind::kF32) {
    pack_awq(p.shape, weights, p.dst);
    return {};
  }
  p.scratch.floats.resize(static_cast<size_t>(p.shape.cols * kTileRows));
  for (int64_t row = 0; row < p.shape.rows; row += kTileRows) {
    const int64_t rows = std::min<int64_t>(kTileRows, p.shape.rows - row);
    for (int64_t r = 0; r < rows; ++r) {
      dequantize_awq_row(
          weights, scale_kind(p.source.scales->dtype), p.shape.rows, row + r,
          std::span(p.scratch.floats)
              .subspan(static_cast<size_t>(r * p.shape.cols), static_cast<size_t>(p.shape.cols)));
    }
    pack_rows(p.shape, p.scratch.floats.data(), row, rows, p.dst);
  }
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
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.scales, p.scratch.scales));
  if (p.source.zeros != nullptr)
    HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.zeros, p.scratch.zeros));
  const bool widen = p.shape.code == CodeKind::kF32;
  HS_ASSIGN_OR_RETURN(ColumnOrder order,
                      column_order(p.checkpoint, p.source, widen ? 0 : p.shape.group));
  if (!widen && !order.expressible) return uneven(p.source);
  CompressedWeights weights{.bits = p.source.scheme.bits,
                            .num_groups = num_scale_groups(p.source),
                            .scales = p.scratch.scales.data(),
                            .zeros = p.source.zeros != nullptr ? p.scratch.zeros.data() : nullptr};
  const int64_t row_bytes = 4 * ceil_div(p.shape.cols * weights.bits, 32);
  HS_RETURN_IF_ERROR(
      p.for_pieces(row_bytes, [&](int64_t tile, int64_t num_tiles, const std::byte* bytes) {
        weights.packed = bytes;
        if (!widen) {
          pack_compressed(p.shape, weights, order.block_group, order.order, tile, num_tiles, p.dst);
          return;
        }
        widen_rows(p, tile, num_tiles, bytes, row_bytes,
                   [&](int64_t row, const std::byte* packed, std::span<float> out) {
                     dequantize_compressed_row(weights, scale_kind(p.source.scales->dtype),
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

Status pack_bitsandbytes_linear(Packing& p) {
  HS_ASSIGN_OR_RETURN(const std::vector<float> absmax, read_absmax(p));
  HS_ASSIGN_OR_RETURN(const auto codebook, read_values<float>(p.checkpoint, *p.source.codebook));
  if (!std::all_of(codebook.begin(), codebook.end(), [](float v) { return std::isfinite(v); })) {
    return fail(fmt::format("tensor '{}': an entry is not finite", p.source.codebook->name));
  }
  std::copy(codebook.begin(), codebook.end(), p.aux.codebook.begin());
  const int64_t block = p.source.group_size;
  if (p.shape.code != CodeKind::kF32) {
    return p.for_pieces(p.shape.cols / 2,
                        [&](int64_t tile, int64_t num_tiles, const std::byte* bytes) {
                          pack_bitsandbytes(p.shape, bytes, absmax, block, tile, num_tiles, p.dst);
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
  HS_RETURN_IF_ERROR(read_into(p.checkpoint, *p.source.scales, p.scratch.scales));
  Fp8Weights weights{.scales = p.scratch.scales.data(),
                     .block_rows = p.source.block_rows,
                     .block_cols = p.source.group_size};
  return p.for_pieces(p.shape.cols, [&](int64_t tile, int64_t num_tiles, const std::byte* bytes) {
    weights.codes = bytes;
    if (p.shape.code != CodeKind::kF32) {
      pack_fp8(p.shape, weights, tile, num_tiles, p.dst);
      return;
    }
    widen_rows(p, tile, num_tiles, bytes, p.shape.cols,
               [&](int64_t row, const std::byte* codes, std::span<float> out) {
                 dequantize_fp8_row(weights, scale_kind(p.source.scales->dtype), codes, row, out);
               });
  });
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

Result<PackPlan> plan_packed(const Checkpoint& checkpoint, const LinearSource& source,
                             const PackOptions& options) {
  switch (source.format) {
    case LinearFormat::kPlain:
      if (options.keep_16bit_at_8) return PackPlan{int8_shape(source.rows, source.cols), {}};
      return PackPlan{plain_shape(plain_code(source.weight->dtype), source.rows, source.cols), {}};
    case LinearFormat::kGptq:
    case LinearFormat::kAwq:
    case LinearFormat::kCompressed:
      return plan_affine(checkpoint, source);
    case LinearFormat::kBitsandbytes:
      return plan_codebook(source);
    case LinearFormat::kFp8:
      return plan_fp8(source);
  }
  return fail(fmt::format("'{}': unknown format", source.module), ErrorKind::kInternal);
}

Status pack_linear(const Checkpoint& checkpoint, const LinearSource& source, const PackPlan& plan,
                   std::span<std::byte> dst, PackScratch& scratch, PackAux& aux) {
  HS_CHECK(static_cast<int64_t>(dst.size()) == plan.shape.bytes(), "{}: {} bytes for {}",
           source.module, dst.size(), plan.shape.bytes());
  aux = {};
  Packing packing{checkpoint, source, plan.shape, dst.data(), scratch, aux};
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

PackedMatrix packed_view(const PackPlan& plan, const std::byte* data, const PackAux& aux) {
  PackedMatrix matrix;
  static_cast<PackedShape&>(matrix) = plan.shape;
  matrix.data = data;
  if (plan.shape.code == CodeKind::kCodebook4) matrix.codebook = aux.codebook.data();
  if (!aux.input_order.empty()) matrix.input_order = aux.input_order.data();
  return matrix;
}

}  // namespace hotset
