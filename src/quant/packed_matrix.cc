// SPDX-License-Identifier: Apache-2.0
#include "quant/packed_matrix.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/checked_math.h"
#include "base/float16.h"

namespace hotset {
namespace {

struct Place {
  const std::byte* group = nullptr;  // the group block
  int64_t lane = 0;                  // row inside the tile
  int64_t col = 0;                   // column inside the group
};

Place place_of(const PackedShape& shape, const std::byte* data, int64_t row, int64_t col) {
  const int64_t g = col / shape.group;
  return {data + (row / kTileRows) * shape.tile_bytes() + g * shape.group_bytes(), row % kTileRows,
          col % shape.group};
}

// Byte offset of a code inside its group block, header included.
int64_t code_offset(const PackedShape& shape, int64_t lane, int64_t col) {
  const int64_t header = shape.group_header_bytes();
  switch (shape.code) {
    case CodeKind::kAffine4:
    case CodeKind::kCodebook4:
      return header + (col / 8) * 64 + 4 * lane + col % 4;
    case CodeKind::kInt8:
      return header + (col / 4) * 64 + 4 * lane + col % 4;
    default:
      return header + (col * kTileRows + lane) * (code_bits(shape.code) / 8);
  }
}

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

float scale_of(const PackedShape& shape, const std::byte* group, int64_t lane) {
  const std::byte* at = group + lane * scale_bytes(shape.scale);
  switch (shape.scale) {
    case ScaleKind::kNone:
      return 1.0f;
    case ScaleKind::kF16:
      return half_to_float(load<uint16_t>(at));
    case ScaleKind::kBF16:
      return bf16_to_float(load<uint16_t>(at));
    case ScaleKind::kF32:
      return load<float>(at);
  }
  return 1.0f;
}

float zero_of(const PackedShape& shape, const std::byte* group, int64_t lane) {
  if (!shape.has_zeros) return shape.zero;
  return load<uint8_t>(group + kTileRows * scale_bytes(shape.scale) + lane);
}

float element(const PackedMatrix& matrix, int64_t row, int64_t col) {
  const Place place = place_of(matrix, matrix.data, row, col);
  const std::byte* at = place.group + code_offset(matrix, place.lane, place.col);
  const auto nibble = [&] {
    const auto byte = load<uint8_t>(at);
    return (place.col % 8) < 4 ? byte & 15 : byte >> 4;
  };
  const float scale = scale_of(matrix, place.group, place.lane);
  switch (matrix.code) {
    case CodeKind::kF32:
      return load<float>(at);
    case CodeKind::kF16:
      return half_to_float(load<uint16_t>(at));
    case CodeKind::kBF16:
      return bf16_to_float(load<uint16_t>(at));
    case CodeKind::kFp8:
      return e4m3_to_float(load<uint8_t>(at)) * scale;
    case CodeKind::kInt8:
      return (static_cast<float>(load<uint8_t>(at)) - zero_of(matrix, place.group, place.lane)) *
             scale;
    case CodeKind::kAffine4:
      return (static_cast<float>(nibble()) - zero_of(matrix, place.group, place.lane)) * scale;
    case CodeKind::kCodebook4:
      return matrix.codebook[nibble()] * scale;
  }
  return 0.0f;
}

void quantize_int8_group(const PackedShape& shape, std::byte* data, int64_t row, int64_t g,
                         const float* values, int64_t count) {
  float amax = 0;
  for (int64_t i = 0; i < count; ++i) amax = std::max(amax, std::fabs(values[i]));
  const float scale = half_to_float(float_to_half(amax / 127.0f));
  set_scale(shape, data, row, g, scale);
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  for (int64_t i = 0; i < shape.group; ++i) {
    const float value = i < count ? values[i] : 0.0f;
    const float code = std::clamp(std::nearbyint(value * inverse), -127.0f, 127.0f);
    set_code(shape, data, row, g * shape.group + i, static_cast<uint32_t>(code + 128.0f));
  }
}

uint32_t plain_code(CodeKind kind, float value) {
  if (kind == CodeKind::kF16) return float_to_half(value);
  if (kind == CodeKind::kBF16) return float_to_bf16(value);
  return std::bit_cast<uint32_t>(value);
}

}  // namespace

const char* code_kind_name(CodeKind kind) {
  switch (kind) {
    case CodeKind::kF32:
      return "f32";
    case CodeKind::kF16:
      return "f16";
    case CodeKind::kBF16:
      return "bf16";
    case CodeKind::kFp8:
      return "fp8";
    case CodeKind::kInt8:
      return "int8";
    case CodeKind::kAffine4:
      return "affine4";
    case CodeKind::kCodebook4:
      return "codebook4";
  }
  return "?";
}

int code_bits(CodeKind kind) {
  switch (kind) {
    case CodeKind::kF32:
      return 32;
    case CodeKind::kF16:
    case CodeKind::kBF16:
      return 16;
    case CodeKind::kFp8:
    case CodeKind::kInt8:
      return 8;
    case CodeKind::kAffine4:
    case CodeKind::kCodebook4:
      return 4;
  }
  return 0;
}

int scale_bytes(ScaleKind kind) {
  switch (kind) {
    case ScaleKind::kNone:
      return 0;
    case ScaleKind::kF16:
    case ScaleKind::kBF16:
      return 2;
    case ScaleKind::kF32:
      return 4;
  }
  return 0;
}

void dequantize_row(const PackedMatrix& matrix, int64_t row, std::span<float> out) {
  HS_CHECK(row >= 0 && row < matrix.rows, "row {} of {}", row, matrix.rows);
  HS_CHECK(static_cast<int64_t>(out.size()) == matrix.cols, "{} for {} columns", out.size(),
           matrix.cols);
  for (int64_t col = 0; col < matrix.cols; ++col) {
    const int64_t to = matrix.input_order != nullptr ? matrix.input_order[col] : col;
    out[static_cast<size_t>(to)] = element(matrix, row, col);
  }
}

void set_code(const PackedShape& shape, std::byte* data, int64_t row, int64_t col, uint32_t code) {
  const Place place = place_of(shape, data, row, col);
  std::byte* at = const_cast<std::byte*>(place.group) + code_offset(shape, place.lane, place.col);
  switch (code_bits(shape.code)) {
    case 4: {
      const auto old = load<uint8_t>(at);
      const bool low = (place.col % 8) < 4;
      *at = static_cast<std::byte>(low ? (old & 0xf0u) | (code & 15u)
                                       : (old & 0x0fu) | ((code & 15u) << 4));
      break;
    }
    case 8:
      *at = static_cast<std::byte>(code);
      break;
    case 16: {
      const auto half = static_cast<uint16_t>(code);
      std::memcpy(at, &half, sizeof(half));
      break;
    }
    default:
      std::memcpy(at, &code, sizeof(code));
      break;
  }
}

void set_scale(const PackedShape& shape, std::byte* data, int64_t row, int64_t group_index,
               float scale) {
  const Place place = place_of(shape, data, row, group_index * shape.group);
  std::byte* at = const_cast<std::byte*>(place.group) + place.lane * scale_bytes(shape.scale);
  if (shape.scale == ScaleKind::kF32) {
    std::memcpy(at, &scale, sizeof(scale));
  } else if (shape.scale != ScaleKind::kNone) {
    const uint16_t bits =
        shape.scale == ScaleKind::kF16 ? float_to_half(scale) : float_to_bf16(scale);
    std::memcpy(at, &bits, sizeof(bits));
  }
}

void set_zero(const PackedShape& shape, std::byte* data, int64_t row, int64_t group_index,
              uint8_t zero) {
  HS_CHECK(shape.has_zeros, "this matrix has one zero for all: {}", shape.zero);
  const Place place = place_of(shape, data, row, group_index * shape.group);
  const_cast<std::byte*>(place.group)[kTileRows * scale_bytes(shape.scale) + place.lane] =
      static_cast<std::byte>(zero);
}

void pack_rows(const PackedShape& shape, const float* values, int64_t row_begin, int64_t num_rows,
               std::byte* data) {
  HS_CHECK(row_begin % kTileRows == 0 && row_begin + num_rows <= shape.rows, "rows {}+{} of {}",
           row_begin, num_rows, shape.rows);
  std::memset(data + row_begin / kTileRows * shape.tile_bytes(), 0,
              static_cast<size_t>(ceil_div(num_rows, kTileRows) * shape.tile_bytes()));
  for (int64_t r = 0; r < num_rows; ++r) {
    const float* row = values + r * shape.cols;
    if (shape.code == CodeKind::kInt8) {
      for (int64_t g = 0; g < shape.num_groups(); ++g) {
        const int64_t first = g * shape.group;
        quantize_int8_group(shape, data, row_begin + r, g, row + first,
                            std::min(shape.group, shape.cols - first));
      }
      continue;
    }
    for (int64_t col = 0; col < shape.cols; ++col) {
      set_code(shape, data, row_begin + r, col, plain_code(shape.code, row[col]));
    }
  }
}

PackedShape plain_shape(CodeKind code, int64_t rows, int64_t cols) {
  return {.code = code, .rows = rows, .cols = cols, .group = round_up(cols, 8)};
}

PackedShape int8_shape(int64_t rows, int64_t cols, int64_t group) {
  return {.code = CodeKind::kInt8,
          .scale = ScaleKind::kF16,
          .zero = 128,
          .rows = rows,
          .cols = cols,
          .group = std::min(group, round_up(cols, 8))};
}

}  // namespace hotset
