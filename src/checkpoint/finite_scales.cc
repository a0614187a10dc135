// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/finite_scales.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace hotset {
namespace {

// The first value whose exponent bits are all set (infinities and NaNs), or -1. Whole pieces are
// judged without a branch a value, which compilers turn into vectors.
template <typename Word>
int64_t find_non_finite(std::span<const std::byte> bytes, Word exponent) {
  constexpr size_t kPiece = 1024;
  const size_t count = bytes.size() / sizeof(Word);
  Word words[kPiece];
  for (size_t begin = 0; begin < count; begin += kPiece) {
    const size_t length = std::min(kPiece, count - begin);
    std::memcpy(words, bytes.data() + begin * sizeof(Word), length * sizeof(Word));
    Word any = 0;
    for (size_t i = 0; i < length; ++i) {
      any = static_cast<Word>(any | static_cast<Word>((words[i] & exponent) == exponent));
    }
    if (any == 0) continue;
    for (size_t i = 0; i < length; ++i) {
      if ((words[i] & exponent) == exponent) return static_cast<int64_t>(begin + i);
    }
  }
  return -1;
}

Status refuse_at(const TensorInfo& tensor, int64_t index) {
  if (index < 0) return {};
  return fail(fmt::format("tensor '{}': scale {} is not a finite number; the file is damaged",
                          tensor.name, index));
}

}  // namespace

Status check_finite_scales(const TensorInfo& tensor, std::span<const std::byte> scales) {
  switch (tensor.dtype) {
    case DType::kF16:
      return refuse_at(tensor, find_non_finite<uint16_t>(scales, 0x7c00));
    case DType::kBF16:
      return refuse_at(tensor, find_non_finite<uint16_t>(scales, 0x7f80));
    case DType::kF32:
      return refuse_at(tensor, find_non_finite<uint32_t>(scales, 0x7f800000));
    default:
      return {};
  }
}

Status check_finite_scales(const TensorInfo& tensor, std::span<const float> scales) {
  return refuse_at(tensor, find_non_finite<uint32_t>(std::as_bytes(scales), 0x7f800000));
}

}  // namespace hotset
