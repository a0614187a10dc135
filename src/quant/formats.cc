// SPDX-License-Identifier: Apache-2.0
#include "quant/formats.h"

#include <array>

#include "base/check.h"
#include "base/checked_math.h"

namespace hotset {
namespace {

constexpr std::array kFormats = {
    FormatRow{LinearFormat::kPlain, "plain", ".weight", "as stored (F32, F16, BF16)", true},
    FormatRow{LinearFormat::kGptq, "gptq", ".qweight", "(q - z) * scale, words along inputs",
              false},
    FormatRow{LinearFormat::kAwq, "awq", ".qweight", "(q - z) * scale, words along outputs", false},
    FormatRow{LinearFormat::kCompressed, "compressed-tensors", ".weight_packed",
              "(q - z) * scale, words along inputs of one row", true},
    FormatRow{LinearFormat::kBitsandbytes, "bitsandbytes", ".weight",
              "quant_map[code] * absmax, flat blocks", true},
    FormatRow{LinearFormat::kFp8, "fp8", ".weight", "e4m3 * scale of its block", true},
};

}  // namespace

std::span<const FormatRow> linear_formats() {
  return kFormats;
}

const FormatRow& linear_format_row(LinearFormat format) {
  const FormatRow& row = kFormats[static_cast<size_t>(format)];
  HS_CHECK(row.format == format, "the table of formats is out of order at {}", row.name);
  return row;
}

const char* linear_format_name(LinearFormat format) {
  return linear_format_row(format).name;
}

int64_t kernel_group(int64_t format_group, int64_t cols) {
  constexpr int64_t kLargest = 128;
  if (format_group < 0 || format_group >= cols) {
    return cols > kLargest ? kLargest : round_up(cols, 8);
  }
  if (format_group % 8 != 0) return 0;
  // A larger group is cut into equal pieces that carry the same scale.
  for (int64_t group = kLargest; group >= 8; group -= 8) {
    if (format_group % group == 0) return group;
  }
  return 0;
}

}  // namespace hotset
