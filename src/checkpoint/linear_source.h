// SPDX-License-Identifier: Apache-2.0
// Where the weight of one linear lies in a checkpoint, whatever wrote it.
//
// find_linear() recognises the format by the tensors that exist (X.qweight, X.weight_packed,
// X.weight with a quant_state, FP8 with weight_scale_inv, plain X.weight) and checks their dtypes
// and shapes against each other and against the [out, in] the model expects. No weight byte is read
// here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/quant_config.h"
#include "quant/formats.h"

namespace hotset {

// Views into the checkpoint's directory; valid as long as the checkpoint.
struct LinearSource {
  std::string module;  // "model.layers.0.mlp.experts.3.up_proj"
  LinearFormat format = LinearFormat::kPlain;
  int64_t rows = 0;  // out features
  int64_t cols = 0;  // in features
  int64_t group_size =
      0;               // columns per scale (kPlain: 0; whole row: cols; bitsandbytes: flat block)
  QuantScheme scheme;  // GPTQ, AWQ, compressed-tensors
  int64_t block_rows = 0;  // kFp8: rows per scale

  const TensorInfo* weight = nullptr;  // qweight, weight_packed or weight
  const TensorInfo* scales = nullptr;  // scales, weight_scale, absmax or weight_scale_inv
  const TensorInfo* zeros = nullptr;
  const TensorInfo* g_idx = nullptr;
  const TensorInfo* codebook = nullptr;         // quant_map
  const TensorInfo* nested_scales = nullptr;    // nested_absmax
  const TensorInfo* nested_codebook = nullptr;  // nested_quant_map
  const TensorInfo* state = nullptr;  // quant_state JSON (bitsandbytes), weight_shape (compressed)
  const TensorInfo* bias = nullptr;   // [rows], if there is one

  // A fused tensor [E, R, C] as E·R rows: this linear is rows row_begin … row_begin+rows-1.
  int64_t row_begin = 0;

  [[nodiscard]] int64_t file_bytes() const;  // what reading this linear costs
};

// kNotFound when no tensor of the module exists.
[[nodiscard]] Result<LinearSource> find_linear(const Checkpoint& checkpoint,
                                               const QuantConfig& config, std::string_view module,
                                               int64_t rows, int64_t cols);

// One matrix out of a fused, unquantised tensor [num_matrices, matrix_rows, cols]
// ("…mlp.experts.gate_up_proj"): rows row_begin … row_begin+rows-1 of matrix `index`.
struct FusedSlice {
  int64_t num_matrices = 0;
  int64_t matrix_rows = 0;
  int64_t cols = 0;
  int64_t index = 0;
  int64_t row_begin = 0;
  int64_t rows = 0;
};
[[nodiscard]] Result<LinearSource> find_fused_linear(const Checkpoint& checkpoint,
                                                     std::string_view tensor,
                                                     const FusedSlice& slice);

}  // namespace hotset
