// SPDX-License-Identifier: Apache-2.0
// What a linear becomes, from headers alone.
#include <fmt/format.h>

#include "base/checked_math.h"
#include "checkpoint/column_order.h"
#include "checkpoint/pack.h"
#include "checkpoint/stored_kind.h"
#include "quant/bitsandbytes.h"

namespace hotset {
namespace {

PackPlan widened(const LinearSource& source, std::string why) {
  return {plain_shape(CodeKind::kF32, source.rows, source.cols),
          fmt::format("held as fp32: {}", why)};
}

// GPTQ, AWQ and compressed-tensors.
Result<PackPlan> plan_affine(const Checkpoint& checkpoint, const LinearSource& source) {
  const bool eight = source.scheme.bits == 8;
  const int64_t group = kernel_group(source.group_size, source.cols);
  if (group == 0) return widened(source, fmt::format("groups of {} columns", source.group_size));
  bool reorders_inputs = false;
  if (source.g_idx != nullptr && source.scheme.desc_act) {
    HS_ASSIGN_OR_RETURN(const ColumnOrder order, column_order(checkpoint, source, group));
    if (!order.expressible) return widened(source, "its g_idx makes groups of uneven size");
    reorders_inputs = !order.order.empty();
  }
  const bool constant_zero =
      source.format == LinearFormat::kGptq ? source.scheme.symmetric : source.zeros == nullptr;
  return PackPlan{{.code = eight ? CodeKind::kInt8 : CodeKind::kAffine4,
                   .scale = stored_scale(source.scales->dtype),
                   .has_zeros = !constant_zero,
                   .zero = static_cast<uint8_t>(eight ? 128 : 8),
                   .rows = source.rows,
                   .cols = source.cols,
                   .group = group},
                  {},
                  reorders_inputs};
}

Result<PackPlan> plan_codebook(const LinearSource& source, const PackOptions& options) {
  const int64_t group = bnb_kernel_group(source.group_size, source.cols);
  if (group == 0) {
    return widened(
        source, fmt::format("blocks of {} run across rows of {}", source.group_size, source.cols));
  }
  return PackPlan{{.code = CodeKind::kCodebook4,
                   .scale = options.codebook_scales_at_16 ? ScaleKind::kF16 : ScaleKind::kF32,
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
                   .scale = stored_scale(source.scales->dtype),
                   .rows = source.rows,
                   .cols = source.cols,
                   .group = group},
                  {}};
}

}  // namespace

Result<PackPlan> plan_packed(const Checkpoint& checkpoint, const LinearSource& source,
                             const PackOptions& options) {
  switch (source.format) {
    case LinearFormat::kPlain:
      if (options.keep_16bit_at_8) return PackPlan{int8_shape(source.rows, source.cols), {}};
      return PackPlan{plain_shape(stored_code(source.weight->dtype), source.rows, source.cols), {}};
    case LinearFormat::kGptq:
    case LinearFormat::kAwq:
    case LinearFormat::kCompressed:
      return plan_affine(checkpoint, source);
    case LinearFormat::kBitsandbytes:
      return plan_codebook(source, options);
    case LinearFormat::kFp8:
      return plan_fp8(source);
  }
  return fail(fmt::format("'{}': unknown format", source.module), ErrorKind::kInternal);
}

}  // namespace hotset
