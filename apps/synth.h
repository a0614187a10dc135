// SPDX-License-Identifier: Apache-2.0
// Checkpoints with true names, shapes, shards and formats, but random weights: for measuring
// loading, memory and speed without the download. What they say is noise; what they cost is the
// real thing.
//
// Weights are scaled so that the residual stream and the logits stay of order 1 over all layers.
// With routing zipf:S, the vocabulary is cut into topics (synth_text.h), each with a dimension of
// the residual stream that nothing else writes; a router's column for it holds -S·log(rank) of each
// expert there. So a hidden popular set moves along with the text, and a cache has something to
// learn. What comes of it is measured: routing_check.h.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

enum class SynthFormat : uint8_t { kBf16, kGptq, kAwq, kCompressedTensors, kNf4, kFp8 };

// "gptq", "awq", "compressed-tensors", "nf4", "fp8", "bf16"
[[nodiscard]] Result<SynthFormat> parse_synth_format(std::string_view name);
// "uniform" gives 0, "zipf:S" gives S (0 … 4).
[[nodiscard]] Result<double> parse_synth_routing(std::string_view text);
// The models whose dimensions are built in; "tiny" is one of them.
[[nodiscard]] std::vector<std::string> synth_model_names();

struct SynthOptions {
  std::string like = "Qwen/Qwen3-Next-80B-A3B-Instruct";
  SynthFormat format = SynthFormat::kGptq;
  std::optional<int64_t> num_layers = {};  // absent: as many as the model has
  double zipf = 0.0;           // expert popularity ~ rank^-zipf; 0: an ordinary random router
  std::string directory = {};  // created; must not hold a checkpoint already
  std::string tokenizer = {};  // a directory whose tokenizer is copied; empty: synth_tokenizer.h
  uint64_t seed = 1;           // same options, same bytes
  int64_t shard_bytes = 4'000'000'000;
  int code_bits = 4;  // compressed-tensors may have 8
};

struct SynthProgress {
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  int64_t num_tensors = 0;
  std::string file;  // being written
};

// The multi-token-prediction head is not part of what is written.
[[nodiscard]] Status write_synthetic_checkpoint(
    const SynthOptions& options, const std::function<void(const SynthProgress&)>& progress = {});

}  // namespace hotset
