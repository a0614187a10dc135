// SPDX-License-Identifier: Apache-2.0
// Stored tensors of the references under golden/, and the numbers by which logits are compared.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace hotset::golden {

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> floats;  // F32
  std::vector<int32_t> ints;  // I32
};

// Reads a safetensors file of F32 and I32 tensors (others are left out); a missing or broken file
// fails the calling test.
std::map<std::string, Tensor> load(const std::string& path);

inline constexpr double kTie = 0.05;  // of logits

struct LogitDifference {
  double max_abs = 0;  // of logits
  int64_t worst_row = 0;
  double mean_kl = 0;  // KL(reference ‖ ours), nats, over rows
  double max_kl = 0;
  double top1 = 0;  // share of rows whose argmax agrees
  // The same, where a choice within kTie of the reference's best agrees as well.
  double top1_or_tie = 0;
  int64_t num_rows = 0;
};

// want, got: [num_rows, vocab]
LogitDifference compare_logits(std::span<const float> want, std::span<const float> got,
                               int64_t vocab);

}  // namespace hotset::golden
