// SPDX-License-Identifier: Apache-2.0
// quantization_config of config.json (or quantize_config.json) as data: which method wrote the
// weights and the conventions that the tensors alone don't tell (bits, group, zero offset).
//
// Which linears are quantised is never taken from here: find_linear() looks at the tensors. What
// this build can't read is refused here, at once and with the reason, before any weight is read.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "checkpoint/json_file.h"
#include "memory/file.h"

namespace hotset {

enum class QuantMethod : uint8_t { kNone, kGptq, kAwq, kCompressedTensors, kBitsandbytes, kFp8 };
[[nodiscard]] const char* quant_method_name(QuantMethod method);  // "gptq"

// The conventions of one linear.
struct QuantScheme {
  int bits = 4;
  int64_t group_size = 128;  // -1: the whole row
  bool symmetric = true;
  bool desc_act = false;        // GPTQ: inputs may be in any order of groups (g_idx)
  bool zeros_minus_one = true;  // GPTQ v1 stores z-1
  bool format_stated = false;   // GPTQ: checkpoint_format was given
};

// A linear name pattern: anchored at the start, bounded in time.
class NamePattern {
 public:
  [[nodiscard]] static Result<NamePattern> compile(std::string_view regex);
  // An error when the pattern runs into its match limit.
  [[nodiscard]] Result<bool> matches(std::string_view name) const;

 private:
  std::shared_ptr<void> code_;
};

struct QuantConfig {
  QuantMethod method = QuantMethod::kNone;
  QuantScheme scheme;             // unless a rule says otherwise
  std::string writer;             // quant_method as written: "auto-round"
  bool bnb_double_quant = false;  // informative; the absmax dtype decides
  int64_t fp8_block_rows = 128;
  int64_t fp8_block_cols = 128;

  // GPTQ `dynamic` and compressed-tensors config_groups, in order: the first match decides.
  struct Rule {
    NamePattern pattern;  // unused for a rule in name_rules
    bool skip = false;    // not quantised
    QuantScheme scheme;
    std::string text;  // as written, for messages
  };
  std::vector<Rule> rules;
  // Where they are looked up: whole names at once, patterns one by one, which is why there may only
  // be few of these.
  std::unordered_map<std::string, size_t> name_rules;  // the first rule of that name
  std::vector<size_t> pattern_rules;

  // The scheme of a module; bits other than 4 fail here, naming module and rule.
  [[nodiscard]] Result<QuantScheme> scheme_of(std::string_view module) const;

  // `config` is config.json. No quantization_config: method kNone.
  [[nodiscard]] static Result<QuantConfig> parse(const Json& config);
  // The object itself; `where` is for messages ("config.json: quantization_config").
  [[nodiscard]] static Result<QuantConfig> parse_object(const Json& object, std::string_view where);
  // config.json's entry, else quantize_config.json when that file exists, else kNone.
  [[nodiscard]] static Result<QuantConfig> load(const Directory& dir, const Json& config);
};

}  // namespace hotset
