// SPDX-License-Identifier: Apache-2.0
// The weight formats of checkpoints that this build reads, one row each. Layout and packing live in
// quant/<format>.{h,cc}; which tensors a linear has is decided in checkpoint/linear_source.cc.
#pragma once

#include <cstdint>
#include <span>

#include "quant/packed_matrix.h"

namespace hotset {

enum class LinearFormat : uint8_t { kPlain, kGptq, kAwq, kCompressed, kBitsandbytes, kFp8 };

struct FormatRow {
  LinearFormat format = LinearFormat::kPlain;
  const char* name = "";           // "gptq"
  const char* weight_suffix = "";  // of the tensor that holds the codes
  const char* value = "";          // how a weight follows from what is stored
  bool codes_along_rows = false;   // one output row is contiguous: can be read in pieces
};

[[nodiscard]] std::span<const FormatRow> linear_formats();
[[nodiscard]] const FormatRow& linear_format_row(LinearFormat format);
[[nodiscard]] const char* linear_format_name(LinearFormat format);

// Columns per group of the packed form for a format whose scales cover `format_group` columns
// (>= cols or -1: the whole row). 0: no packed group fits, the matrix must become kF32.
[[nodiscard]] int64_t kernel_group(int64_t format_group, int64_t cols);

}  // namespace hotset
