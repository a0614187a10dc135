// SPDX-License-Identifier: Apache-2.0
// A file's dtypes as the packed form names them. Only types that find_linear() lets through.
#pragma once

#include "checkpoint/safetensors.h"
#include "quant/packed_matrix.h"

namespace hotset {

inline ScaleKind stored_scale(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return ScaleKind::kF16;
    case DType::kBF16:
      return ScaleKind::kBF16;
    default:
      return ScaleKind::kF32;
  }
}

inline CodeKind stored_code(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return CodeKind::kF16;
    case DType::kBF16:
      return CodeKind::kBF16;
    default:
      return CodeKind::kF32;
  }
}

}  // namespace hotset
