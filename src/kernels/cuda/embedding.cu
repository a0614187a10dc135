// SPDX-License-Identifier: Apache-2.0
// Rows of a packed table: a block a token and 256 of its columns, so that all of a row's reads are
// under way at once, wherever the table lies (quant/packed_matrix.h has the layout). Bits equal
// dequantize_row's.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/embedding.h"

namespace hotset {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// What the kernel needs of a PackedMatrix.
struct Table {
  const uint8_t* data;
  const float* codebook;
  const int32_t* input_order;
  int64_t tile_bytes;
  int64_t group_bytes;
  int64_t rows;
  int32_t cols;
  int32_t group;
  int32_t header_bytes;
  int32_t scale_bytes;
  ScaleKind scale;
  bool has_zeros;
  uint8_t zero;
};

template <typename T>
__device__ T load_as(const uint8_t* at) {
  return *reinterpret_cast<const T*>(at);
}

__device__ float half_at(const uint8_t* at) {
  return __half2float(__ushort_as_half(load_as<uint16_t>(at)));
}

__device__ float bf16_at(const uint8_t* at) {
  return __uint_as_float(static_cast<uint32_t>(load_as<uint16_t>(at)) << 16);
}

__device__ float e4m3_at(const uint8_t* at) {
  const uint32_t bits = *at;
  const uint32_t exponent = (bits >> 3) & 15u, mantissa = bits & 7u;
  const uint32_t sign = (bits & 0x80u) << 24;
  if (exponent == 15u && mantissa == 7u) return __uint_as_float(sign | 0x7fc00000u);
  const float magnitude = exponent == 0u
                              ? static_cast<float>(mantissa) * 0x1p-9f
                              : __uint_as_float(((exponent + 120u) << 23) | (mantissa << 20));
  return (sign != 0u) ? -magnitude : magnitude;
}

__device__ float scale_at(const Table& table, const uint8_t* group, int lane) {
  const uint8_t* at = group + lane * table.scale_bytes;
  switch (table.scale) {
    case ScaleKind::kF16:
      return half_at(at);
    case ScaleKind::kBF16:
      return bf16_at(at);
    case ScaleKind::kF32:
      return load_as<float>(at);
    default:
      return 1.0f;
  }
}

// Column `col` of row `lane` in a group block.
template <CodeKind kCode>
__device__ float element(const Table& table, const uint8_t* group, int lane, int col) {
  const uint8_t* codes = group + table.header_bytes;
  if constexpr (kCode == CodeKind::kF32) return load_as<float>(codes + (col * 16 + lane) * 4);
  if constexpr (kCode == CodeKind::kF16) return half_at(codes + (col * 16 + lane) * 2);
  if constexpr (kCode == CodeKind::kBF16) return bf16_at(codes + (col * 16 + lane) * 2);
  const float scale = scale_at(table, group, lane);
  if constexpr (kCode == CodeKind::kFp8) return e4m3_at(codes + col * 16 + lane) * scale;
  const float zero = table.has_zeros ? group[kTileRows * table.scale_bytes + lane]
                                     : static_cast<float>(table.zero);
  if constexpr (kCode == CodeKind::kInt8) {
    return (static_cast<float>(codes[col / 4 * 64 + 4 * lane + col % 4]) - zero) * scale;
  }
  const uint32_t byte = codes[col / 8 * 64 + 4 * lane + col % 4];
  const uint32_t nibble = col % 8 < 4 ? byte & 15u : byte >> 4;
  if constexpr (kCode == CodeKind::kCodebook4) return table.codebook[nibble] * scale;
  return (static_cast<float>(nibble) - zero) * scale;
}

// An id outside of the table gives a row of NaNs instead of a stray read.
template <CodeKind kCode>
__global__ void __launch_bounds__(kThreads)
    embed_kernel(Table table, const int32_t* ids, float* out) {
  start_next();
  wait_for_earlier();
  const int64_t id = ids[blockIdx.x];
  const bool known = id >= 0 && id < table.rows;
  const uint8_t* tile = table.data + (known ? id / kTileRows : 0) * table.tile_bytes;
  const int lane = static_cast<int>(id & (kTileRows - 1));
  float* row = out + static_cast<int64_t>(blockIdx.x) * table.cols;
  const int col = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (col >= table.cols) return;
  const uint8_t* group = tile + col / table.group * table.group_bytes;
  const int to = table.input_order != nullptr ? table.input_order[col] : col;
  row[to] = known ? element<kCode>(table, group, lane, col % table.group) : nanf("");
}

Table table_of(const PackedMatrix& matrix) {
  return {.data = reinterpret_cast<const uint8_t*>(matrix.data),
          .codebook = matrix.codebook,
          .input_order = matrix.input_order,
          .tile_bytes = matrix.tile_bytes(),
          .group_bytes = matrix.group_bytes(),
          .rows = matrix.rows,
          .cols = static_cast<int32_t>(matrix.cols),
          .group = static_cast<int32_t>(matrix.group),
          .header_bytes = static_cast<int32_t>(matrix.group_header_bytes()),
          .scale_bytes = scale_bytes(matrix.scale),
          .scale = matrix.scale,
          .has_zeros = matrix.has_zeros,
          .zero = matrix.zero};
}

template <CodeKind kCode>
void embed_as(Queue& queue, const PackedMatrix& table, std::span<const int32_t> ids, float* out) {
  HS_LAUNCH_EARLY(
      queue, (Grid{.x = static_cast<unsigned>(ids.size()), .y = blocks_for(table.cols, kThreads)}),
      Grid{.x = kThreads}, 0, embed_kernel<kCode>, table_of(table), ids.data(), out);
}

}  // namespace
}  // namespace cuda

void embed(cuda::Queue& queue, const PackedMatrix& table, std::span<const int32_t> ids,
           float* out) {
  switch (table.code) {
    case CodeKind::kF32:
      return cuda::embed_as<CodeKind::kF32>(queue, table, ids, out);
    case CodeKind::kF16:
      return cuda::embed_as<CodeKind::kF16>(queue, table, ids, out);
    case CodeKind::kBF16:
      return cuda::embed_as<CodeKind::kBF16>(queue, table, ids, out);
    case CodeKind::kFp8:
      return cuda::embed_as<CodeKind::kFp8>(queue, table, ids, out);
    case CodeKind::kInt8:
      return cuda::embed_as<CodeKind::kInt8>(queue, table, ids, out);
    case CodeKind::kAffine4:
      return cuda::embed_as<CodeKind::kAffine4>(queue, table, ids, out);
    case CodeKind::kCodebook4:
      return cuda::embed_as<CodeKind::kCodebook4>(queue, table, ids, out);
  }
}

}  // namespace hotset
