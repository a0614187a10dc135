// SPDX-License-Identifier: Apache-2.0
// The safetensors container: an 8-byte length, a JSON directory of tensors, one data buffer.
//
// parse() believes nothing: the header must be the reference reader's idea of well-formed, sizes
// must follow from dtype and shape, and the tensors must tile the buffer without hole or overlap.
// Everything downstream may rely on that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
  kC64,
  kF4,
  kF6E2M3,
  kF6E3M2,
};
[[nodiscard]] const char* dtype_name(DType dtype);  // "BF16", as in the files
[[nodiscard]] int dtype_bits(DType dtype);
[[nodiscard]] std::optional<DType> dtype_from_name(std::string_view name);

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  uint32_t shard = 0;          // index into Checkpoint::shards(); 0 for a single file
  std::vector<int64_t> shape;  // C order; [] is a scalar
  int64_t offset = 0;          // in the file, header included
  int64_t bytes = 0;

  [[nodiscard]] int64_t numel() const;
};
[[nodiscard]] std::string shape_text(std::span<const int64_t> shape);  // "[512, 2048]"

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// The length prefix alone: how many header bytes follow the first 8. `first8` has 8 bytes.
[[nodiscard]] Result<int64_t> safetensors_header_length(std::span<const std::byte> first8,
                                                        int64_t file_size,
                                                        std::string_view file_name);

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in file order
  std::map<std::string, std::string> metadata;

  // `json`: the header bytes after the length prefix. `file_name` is for messages.
  [[nodiscard]] static Result<SafetensorsHeader> parse(std::string_view json, int64_t file_size,
                                                       std::string_view file_name);
};

}  // namespace hotset
