// SPDX-License-Identifier: Apache-2.0
// One finder a format, tried in the order in which their tensors can't be confused.
#include "checkpoint/linear_source.h"

#include <fmt/format.h>

#include <array>
#include <vector>

#include "base/checked_math.h"
#include "checkpoint/bnb_state.h"

namespace hotset {
namespace {

constexpr std::array kFloatTypes = {DType::kF16, DType::kBF16, DType::kF32};

// Looks tensors up by suffix and keeps the first problem.
class Finder {
 public:
  Finder(const Checkpoint& checkpoint, std::string_view module)
      : checkpoint_(checkpoint), module_(module) {}

  [[nodiscard]] const TensorInfo* find(std::string_view suffix) const {
    return checkpoint_.find(fmt::format("{}{}", module_, suffix));
  }
  const TensorInfo* require(std::string_view suffix) {
    const TensorInfo* tensor = find(suffix);
    if (tensor == nullptr) problem(fmt::format("tensor '{}{}' is missing", module_, suffix));
    return tensor;
  }
  void check(const TensorInfo* tensor, std::span<const DType> dtypes,
             const std::vector<int64_t>& shape) {
    if (tensor == nullptr) return;
    if (tensor->shape != shape) {
      problem(fmt::format("tensor '{}': shape {}, expected {}", tensor->name,
                          shape_text(tensor->shape), shape_text(shape)));
    }
    for (const DType dtype : dtypes) {
      if (tensor->dtype == dtype) return;
    }
    problem(fmt::format("tensor '{}': dtype {}, expected {}", tensor->name,
                        dtype_name(tensor->dtype), dtype_name(dtypes[0])));
  }
  void check(const TensorInfo* tensor, DType dtype, const std::vector<int64_t>& shape) {
    check(tensor, std::span(&dtype, 1), shape);
  }
  void problem(std::string message) {
    if (error_.empty())
      error_ = fmt::format("{}: {}", checkpoint_.directory().path(), std::move(message));
  }
  [[nodiscard]] bool ok() const { return error_.empty(); }

  Result<LinearSource> done(LinearSource source) {
    if (!ok()) return fail(error_);
    return source;
  }

 private:
  const Checkpoint& checkpoint_;
  std::string_view module_;
  std::string error_;
};

// Scales per row of a scheme; -1 and anything beyond the row are one group.
int64_t num_groups(const QuantScheme& scheme, int64_t cols) {
  return scheme.group_size < 0 || scheme.group_size > cols ? 1 : ceil_div(cols, scheme.group_size);
}

int64_t stored_group(const QuantScheme& scheme, int64_t cols) {
  return scheme.group_size < 0 || scheme.group_size > cols ? cols : scheme.group_size;
}

void check_word_multiple(Finder& in, const char* what, int64_t features, int bits) {
  if (features * bits % 32 != 0) {
    in.problem(fmt::format("{} features {} do not fill 32-bit words of {}-bit codes", what,
                           features, bits));
  }
}

Result<LinearSource> find_gptq(Finder& in, LinearSource source) {
  source.format = LinearFormat::kGptq;
  const int bits = source.scheme.bits;
  const int64_t groups = num_groups(source.scheme, source.cols);
  source.group_size = stored_group(source.scheme, source.cols);
  check_word_multiple(in, "in", source.cols, bits);
  check_word_multiple(in, "out", source.rows, bits);
  source.weight = in.require(".qweight");
  source.scales = in.require(".scales");
  source.zeros = in.require(".qzeros");
  source.g_idx = in.find(".g_idx");
  in.check(source.weight, DType::kI32, {source.cols * bits / 32, source.rows});
  in.check(source.scales, kFloatTypes, {groups, source.rows});
  in.check(source.zeros, DType::kI32, {groups, source.rows * bits / 32});
  in.check(source.g_idx, DType::kI32, {source.cols});
  return in.done(std::move(source));
}

Result<LinearSource> find_awq(Finder& in, LinearSource source) {
  source.format = LinearFormat::kAwq;
  const int64_t groups = num_groups(source.scheme, source.cols);
  source.group_size = stored_group(source.scheme, source.cols);
  check_word_multiple(in, "out", source.rows, 4);
  source.weight = in.require(".qweight");
  source.scales = in.require(".scales");
  source.zeros = in.require(".qzeros");
  in.check(source.weight, DType::kI32, {source.cols, source.rows / 8});
  in.check(source.scales, kFloatTypes, {groups, source.rows});
  in.check(source.zeros, DType::kI32, {groups, source.rows / 8});
  return in.done(std::move(source));
}

Result<LinearSource> find_compressed(Finder& in, LinearSource source) {
  source.format = LinearFormat::kCompressed;
  if (in.find(".weight_global_scale") != nullptr) {
    in.problem(fmt::format("'{}' is NVFP4, which is not supported", source.module));
  }
  const int bits = source.scheme.bits;
  const int64_t groups = num_groups(source.scheme, source.cols);
  source.group_size = stored_group(source.scheme, source.cols);
  source.weight = in.require(".weight_packed");
  source.scales = in.require(".weight_scale");
  source.state = in.require(".weight_shape");
  source.zeros = in.find(".weight_zero_point");
  source.g_idx = in.find(".weight_g_idx");
  if (!source.scheme.symmetric && source.zeros == nullptr) in.require(".weight_zero_point");
  in.check(source.weight, DType::kI32, {source.rows, ceil_div(source.cols * bits, 32)});
  in.check(source.scales, kFloatTypes, {source.rows, groups});
  in.check(source.zeros, DType::kI32, {ceil_div(source.rows * bits, 32), groups});
  in.check(source.state, DType::kI64, {2});
  in.check(source.g_idx, DType::kI32, {source.cols});
  return in.done(std::move(source));
}

Result<LinearSource> find_bitsandbytes(const Checkpoint& checkpoint, Finder& in,
                                       LinearSource source, const TensorInfo* state) {
  source.format = LinearFormat::kBitsandbytes;
  source.state = state;
  source.weight = in.require(".weight");
  source.scales = in.require(".weight.absmax");
  source.codebook = in.require(".weight.quant_map");
  if (!in.ok()) return in.done({});
  HS_ASSIGN_OR_RETURN(const BnbState parsed, read_bnb_state(checkpoint, *state));
  source.group_size = parsed.blocksize;
  const int64_t numel = source.rows * source.cols;
  if (parsed.rows != source.rows || parsed.cols != source.cols) {
    in.problem(fmt::format("tensor '{}': shape {}, expected {}", state->name,
                           shape_text(std::array{parsed.rows, parsed.cols}),
                           shape_text(std::array{source.rows, source.cols})));
  }
  if (source.weight->bytes != ceil_div(numel, 2) || source.cols % 2 != 0) {
    in.problem(fmt::format("tensor '{}': {} bytes for {} 4-bit codes in rows of {}",
                           source.weight->name, source.weight->bytes, numel, source.cols));
  }
  const int64_t blocks = ceil_div(numel, parsed.blocksize);
  in.check(source.codebook, DType::kF32, {16});
  if (parsed.nested_blocksize == 0) {
    in.check(source.scales, DType::kF32, {blocks});
    return in.done(std::move(source));
  }
  source.nested_scales = in.require(".weight.nested_absmax");
  source.nested_codebook = in.require(".weight.nested_quant_map");
  in.check(source.scales, DType::kU8, {blocks});
  in.check(source.nested_scales, DType::kF32, {ceil_div(blocks, parsed.nested_blocksize)});
  in.check(source.nested_codebook, DType::kF32, {256});
  return in.done(std::move(source));
}

Result<LinearSource> find_fp8(Finder& in, LinearSource source, const QuantConfig& config) {
  source.format = LinearFormat::kFp8;
  source.block_rows = config.fp8_block_rows;
  source.group_size = config.fp8_block_cols;
  source.scales = in.find(".weight_scale_inv");
  if (source.scales == nullptr) {
    in.problem(
        fmt::format("'{}' is FP8 without {}.weight_scale_inv; only block scales are supported",
                    source.weight->name, source.module));
  }
  in.check(source.weight, DType::kF8E4M3, {source.rows, source.cols});
  in.check(source.scales, kFloatTypes,
           {ceil_div(source.rows, source.block_rows), ceil_div(source.cols, source.group_size)});
  return in.done(std::move(source));
}

}  // namespace

int64_t LinearSource::file_bytes() const {
  int64_t bytes = 0;
  for (const TensorInfo* tensor :
       {scales, zeros, g_idx, codebook, nested_scales, nested_codebook, state, bias}) {
    if (tensor != nullptr) bytes += tensor->bytes;
  }
  // A slice of a fused tensor reads its rows only.
  if (format == LinearFormat::kPlain) return bytes + rows * cols * dtype_bits(weight->dtype) / 8;
  return bytes + weight->bytes;
}

Result<LinearSource> find_linear(const Checkpoint& checkpoint, const QuantConfig& config,
                                 std::string_view module, int64_t rows, int64_t cols) {
  Finder in(checkpoint, module);
  LinearSource source;
  source.module = module;
  source.rows = rows;
  source.cols = cols;
  source.bias = in.find(".bias");
  in.check(source.bias, kFloatTypes, {rows});
  if (in.find(".qweight") != nullptr || in.find(".weight_packed") != nullptr) {
    HS_ASSIGN_OR_RETURN(source.scheme, config.scheme_of(module));
    if (in.find(".weight_packed") != nullptr) return find_compressed(in, std::move(source));
    if (config.method == QuantMethod::kAwq) return find_awq(in, std::move(source));
    if (config.method == QuantMethod::kGptq) return find_gptq(in, std::move(source));
    return fail(
        fmt::format("{}: '{}.qweight' is there, but config.json's quantization_config names "
                    "neither gptq nor awq",
                    checkpoint.directory().path(), module));
  }
  source.weight = in.find(".weight");
  if (source.weight == nullptr) {
    return fail(fmt::format("{}: no weight of '{}' was found (.weight, .qweight or .weight_packed)",
                            checkpoint.directory().path(), module),
                ErrorKind::kNotFound);
  }
  for (const char* suffix :
       {".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4"}) {
    if (const TensorInfo* state = in.find(suffix); state != nullptr) {
      return find_bitsandbytes(checkpoint, in, std::move(source), state);
    }
  }
  if (in.find(".SCB") != nullptr) {
    return fail(
        fmt::format("{}: '{}' is 8-bit bitsandbytes (SCB), which is not supported; NF4 and FP4 are",
                    checkpoint.directory().path(), module),
        ErrorKind::kUnsupported);
  }
  if (source.weight->dtype == DType::kF8E4M3) return find_fp8(in, std::move(source), config);
  in.check(source.weight, kFloatTypes, {rows, cols});
  return in.done(std::move(source));
}

Result<LinearSource> find_fused_linear(const Checkpoint& checkpoint, std::string_view tensor,
                                       const FusedSlice& slice) {
  Finder in(checkpoint, tensor);
  LinearSource source;
  source.module = fmt::format("{}[{}]", tensor, slice.index);
  source.rows = slice.rows;
  source.cols = slice.cols;
  source.row_begin = slice.index * slice.matrix_rows + slice.row_begin;
  source.weight = in.require("");
  in.check(source.weight, kFloatTypes, {slice.num_matrices, slice.matrix_rows, slice.cols});
  return in.done(std::move(source));
}

}  // namespace hotset
