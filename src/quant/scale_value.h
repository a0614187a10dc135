// SPDX-License-Identifier: Apache-2.0
// A stored scale as fp32, whatever its type. For the slow paths; packers copy scales as bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/float16.h"
#include "quant/packed_matrix.h"
#include "quant/tile_layout.h"

namespace hotset {

inline float scale_value(ScaleKind kind, const std::byte* scales, int64_t index) {
  switch (kind) {
    case ScaleKind::kNone:
      return 1.0f;
    case ScaleKind::kF16:
      return half_to_float(load_as<uint16_t>(scales + 2 * index));
    case ScaleKind::kBF16:
      return bf16_to_float(load_as<uint16_t>(scales + 2 * index));
    case ScaleKind::kF32:
      return load_as<float>(scales + 4 * index);
  }
  return 1.0f;
}

}  // namespace hotset
