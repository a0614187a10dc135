// SPDX-License-Identifier: Apache-2.0
// One reader a method; each takes what it needs and refuses what it can't honour, by name.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "checkpoint/quant_config.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <utility>

namespace hotset {
namespace {

constexpr size_t kMaxPatternBytes = 4096;
constexpr size_t kMaxRules = 65536;
constexpr size_t kMaxPatternRules = 512;  // each is tried on each of up to 10^5 modules
constexpr uint32_t kMatchLimit = 100'000;

// Typed access to one object; the first problem is kept.
class Fields {
 public:
  Fields(const Json& object, std::string_view where) : object_(object), where_(where) {}

  [[nodiscard]] const Json* find(const char* key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }
  std::string text(const char* key, std::string fallback = {}) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) return problem(key, "is not a string"), fallback;
    return value->get<std::string>();
  }
  int64_t integer(const char* key, int64_t fallback, int64_t low, int64_t high) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    // Unsigned numbers above 2^63-1 would compare as negative ones.
    const bool huge = value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX};
    if (!value->is_number_integer() || huge || *value < low || *value > high) {
      return problem(key, fmt::format("is not an integer in {} … {}", low, high)), fallback;
    }
    return value->get<int64_t>();
  }
  bool boolean(const char* key, bool fallback) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) return problem(key, "is not true or false"), fallback;
    return value->get<bool>();
  }
  void problem(std::string_view key, std::string_view what) {
    if (error_.empty()) error_ = fmt::format("{}: {} {}", where_, key, what);
  }
  void unsupported(std::string_view key, std::string_view value, std::string_view instead) {
    problem(key, fmt::format("'{}' is not supported ({})", value.substr(0, 100), instead));
  }
  [[nodiscard]] Status status() const {
    if (error_.empty()) return {};
    return fail(error_, ErrorKind::kUnsupported);
  }
  [[nodiscard]] bool ok() const { return error_.empty(); }
  [[nodiscard]] const std::string& where() const { return where_; }

 private:
  const Json& object_;
  std::string where_;
  std::string error_;
};

void read_scheme(Fields& in, QuantScheme& scheme) {
  scheme.bits = static_cast<int>(in.integer("bits", scheme.bits, 1, 32));
  scheme.group_size = in.integer("group_size", scheme.group_size, -1, int64_t{1} << 24);
  if (scheme.group_size == 0) in.problem("group_size", "is 0");
  scheme.symmetric = in.boolean("sym", scheme.symmetric);
  scheme.desc_act = in.boolean("desc_act", scheme.desc_act);
}

// The one name that a pattern stands for, if it is written as one: ^a\.b\.c$.
std::optional<std::string> whole_name(std::string_view regex) {
  if (regex.starts_with('^')) regex.remove_prefix(1);
  if (!regex.ends_with('$')) return std::nullopt;
  regex.remove_suffix(1);
  std::string name;
  for (size_t i = 0; i < regex.size(); ++i) {
    const bool dot = regex.substr(i).starts_with("\\.");
    if (dot) ++i;
    const char c = regex[i];
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '-';
    if (!plain && !dot) return std::nullopt;
    name += c;
  }
  return name;
}

void add_name_rule(std::string name, QuantConfig::Rule rule, QuantConfig& out) {
  out.name_rules.try_emplace(std::move(name), out.rules.size());
  out.rules.push_back(std::move(rule));
}

Status add_pattern_rule(std::string_view regex, QuantConfig::Rule rule, const std::string& where,
                        QuantConfig& out) {
  if (auto name = whole_name(regex)) {
    add_name_rule(std::move(*name), std::move(rule), out);
    return {};
  }
  if (out.pattern_rules.size() >= kMaxPatternRules) {
    return fail(fmt::format("{}: more than {} patterns of module names ('{}' is one too many); "
                            "rules for whole names, ^a\\.b\\.c$, are not limited so",
                            where, kMaxPatternRules, rule.text.substr(0, 200)),
                ErrorKind::kUnsupported);
  }
  HS_ASSIGN_OR_RETURN(rule.pattern, NamePattern::compile(regex));
  out.pattern_rules.push_back(out.rules.size());
  out.rules.push_back(std::move(rule));
  return {};
}

Status read_dynamic(Fields& in, QuantConfig& out) {
  const Json* dynamic = in.find("dynamic");
  if (dynamic == nullptr) return {};
  if (!dynamic->is_object() || dynamic->size() > kMaxRules) {
    return fail(in.where() + ": dynamic is not an object of rules");
  }
  for (const auto& [key, overrides] : dynamic->items()) {
    std::string_view pattern = key;
    QuantConfig::Rule rule{
        .pattern = {}, .skip = pattern.starts_with("-:"), .scheme = out.scheme, .text = key};
    if (pattern.starts_with("-:") || pattern.starts_with("+:")) pattern.remove_prefix(2);
    if (!rule.skip) {
      if (!overrides.is_object())
        return fail(fmt::format("{}: dynamic: '{}' has no object", in.where(), key));
      Fields fields(overrides, fmt::format("{}: dynamic: '{}'", in.where(), key));
      read_scheme(fields, rule.scheme);
      HS_RETURN_IF_ERROR(fields.status());
    }
    HS_RETURN_IF_ERROR(add_pattern_rule(pattern, std::move(rule), in.where() + ": dynamic", out));
  }
  return {};
}

Status read_gptq(Fields& in, QuantConfig& out) {
  out.method = QuantMethod::kGptq;
  read_scheme(in, out.scheme);
  std::string format = in.text("checkpoint_format");
  if (format.empty()) format = in.text("format");
  out.scheme.format_stated = !format.empty();
  if (format.empty() || format == "gptq") {
    out.scheme.zeros_minus_one = true;
  } else if (format == "gptq_v2") {
    out.scheme.zeros_minus_one = false;
  } else {
    in.unsupported("checkpoint_format", format, "gptq and gptq_v2 are");
  }
  if (const std::string pack = in.text("pack_dtype", "int32"); pack != "int32") {
    in.unsupported("pack_dtype", pack, "int32 is");
  }
  HS_RETURN_IF_ERROR(in.status());
  return read_dynamic(in, out);
}

Status read_awq(Fields& in, QuantConfig& out) {
  out.method = QuantMethod::kAwq;
  read_scheme(in, out.scheme);
  out.scheme.bits = static_cast<int>(in.integer("w_bit", out.scheme.bits, 1, 32));
  out.scheme.group_size = in.integer("q_group_size", out.scheme.group_size, -1, int64_t{1} << 24);
  if (const std::string version = in.text("version", "gemm");
      version != "gemm" && version != "GEMM") {
    in.unsupported("version", version, "gemm is; other AWQ layouts pack differently");
  }
  out.scheme.symmetric = !in.boolean("zero_point", true);
  if (out.scheme.symmetric)
    in.unsupported("zero_point", "false", "the gemm layout stores zero points");
  return in.status();
}

Status read_auto_round(Fields& in, QuantConfig& out) {
  const std::string packing = in.text("packing_format", "auto_round:auto_gptq");
  if (packing == "auto_round:auto_gptq") return read_gptq(in, out);
  if (packing == "auto_round:auto_awq") return read_awq(in, out);
  in.unsupported("packing_format", packing, "auto_round:auto_gptq and auto_round:auto_awq are");
  return in.status();
}

Status read_bitsandbytes(Fields& in, QuantConfig& out) {
  out.method = QuantMethod::kBitsandbytes;
  if (in.boolean("load_in_8bit", false) || in.boolean("_load_in_8bit", false)) {
    in.unsupported("load_in_8bit", "true", "4-bit NF4 and FP4 are");
  }
  const std::string type = in.text("bnb_4bit_quant_type", "fp4");
  if (type != "nf4" && type != "fp4")
    in.unsupported("bnb_4bit_quant_type", type, "nf4 and fp4 are");
  out.bnb_double_quant = in.boolean("bnb_4bit_use_double_quant", false);
  return in.status();
}

Status read_fp8(Fields& in, QuantConfig& out) {
  out.method = QuantMethod::kFp8;
  if (const std::string fmt = in.text("fmt", "e4m3"); fmt != "e4m3")
    in.unsupported("fmt", fmt, "e4m3 is");
  const Json* block = in.find("weight_block_size");
  if (block == nullptr) return in.status();
  const bool pair = block->is_array() && block->size() == 2 && (*block)[0].is_number_integer() &&
                    (*block)[1].is_number_integer();
  if (!pair || (*block)[0] < 1 || (*block)[1] < 1 || (*block)[0] > 65536 || (*block)[1] > 65536) {
    in.problem("weight_block_size", "is not a pair of positive integers");
    return in.status();
  }
  out.fp8_block_rows = (*block)[0].get<int64_t>();
  out.fp8_block_cols = (*block)[1].get<int64_t>();
  return in.status();
}

Status read_group_weights(Fields& in, QuantScheme& scheme) {
  scheme.bits = static_cast<int>(in.integer("num_bits", 4, 1, 32));
  scheme.symmetric = in.boolean("symmetric", true);
  if (const std::string type = in.text("type", "int"); type != "int") {
    in.unsupported("type", type, "int is; float formats are not pack-quantized");
  }
  const std::string strategy = in.text("strategy", "group");
  if (strategy == "channel") {
    scheme.group_size = -1;
  } else if (strategy == "group") {
    scheme.group_size = in.integer("group_size", 128, -1, int64_t{1} << 24);
    if (scheme.group_size == 0) in.problem("group_size", "is 0");
  } else {
    in.unsupported("strategy", strategy, "group and channel are");
  }
  return in.status();
}

// Targets become rules in the order of the groups; a class name ("Linear") matches every module.
Status read_config_group(const std::string& name, const Json& group, const std::string& where,
                         QuantConfig& out) {
  const std::string place = fmt::format("{}: config_groups: {}", where, name);
  if (!group.is_object() || !group.contains("weights") || !group["weights"].is_object()) {
    return fail(place + ": has no weights object");
  }
  Fields fields(group, place);
  const std::string format = fields.text("format", "pack-quantized");
  if (format != "pack-quantized") fields.unsupported("format", format, "pack-quantized is");
  HS_RETURN_IF_ERROR(fields.status());
  QuantScheme scheme;
  Fields weights(group["weights"], place + ": weights");
  HS_RETURN_IF_ERROR(read_group_weights(weights, scheme));
  const Json* targets = fields.find("targets");
  if (targets == nullptr || !targets->is_array()) return fail(place + ": targets is not a list");
  for (const Json& target : *targets) {
    if (!target.is_string()) return fail(place + ": a target is not a string");
    const auto text = target.get<std::string>();
    QuantConfig::Rule rule{.pattern = {}, .skip = false, .scheme = scheme, .text = text};
    if (!text.starts_with("re:") && text.find('.') != std::string::npos) {
      add_name_rule(text, std::move(rule), out);
      continue;
    }
    const std::string pattern = text.starts_with("re:") ? text.substr(3) : ".*";  // a class name
    HS_RETURN_IF_ERROR(add_pattern_rule(pattern, std::move(rule), place, out));
  }
  out.scheme = scheme;
  return {};
}

Status read_compressed_tensors(Fields& in, QuantConfig& out) {
  out.method = QuantMethod::kCompressedTensors;
  if (const std::string format = in.text("format", "pack-quantized");
      format != "pack-quantized" && format != "mixed-precision") {
    in.unsupported("format", format, "pack-quantized is");
  }
  if (const Json* sparsity = in.find("sparsity_config");
      sparsity != nullptr && sparsity->is_object()) {
    Fields fields(*sparsity, in.where() + ": sparsity_config");
    if (const std::string format = fields.text("format", "dense"); format != "dense") {
      fields.unsupported("format", format, "dense is");
    }
    HS_RETURN_IF_ERROR(fields.status());
  }
  const Json* groups = in.find("config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty()) {
    in.problem("config_groups", "is missing");
  }
  HS_RETURN_IF_ERROR(in.status());
  for (const auto& [name, group] : groups->items()) {
    HS_RETURN_IF_ERROR(read_config_group(name, group, in.where(), out));
    if (out.rules.size() > kMaxRules) return fail(in.where() + ": far too many targets");
  }
  return {};
}

}  // namespace

const char* quant_method_name(QuantMethod method) {
  switch (method) {
    case QuantMethod::kNone:
      return "none";
    case QuantMethod::kGptq:
      return "gptq";
    case QuantMethod::kAwq:
      return "awq";
    case QuantMethod::kCompressedTensors:
      return "compressed-tensors";
    case QuantMethod::kBitsandbytes:
      return "bitsandbytes";
    case QuantMethod::kFp8:
      return "fp8";
  }
  return "?";
}

Result<NamePattern> NamePattern::compile(std::string_view regex) {
  if (regex.size() > kMaxPatternBytes) return fail("a module pattern is longer than 4096 bytes");
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                    PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[128] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    return fail(fmt::format("module pattern '{}': {} at {}", regex.substr(0, 200),
                            reinterpret_cast<const char*>(message), offset));
  }
  NamePattern pattern;
  pattern.code_ =
      std::shared_ptr<void>(code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  return pattern;
}

Result<bool> NamePattern::matches(std::string_view name) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), 1000);
  pcre2_set_heap_limit(context.get(), 1024);
  const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0,
                                data.get(), context.get());
  if (found >= 0) return true;
  if (found == PCRE2_ERROR_NOMATCH) return false;
  return fail(fmt::format("module pattern: gave up on '{}' (code {})", name.substr(0, 200), found));
}

Result<QuantScheme> QuantConfig::scheme_of(std::string_view module) const {
  QuantScheme chosen = scheme;
  std::string_view rule_text;
  const auto named = name_rules.find(std::string(module));
  size_t first = named == name_rules.end() ? rules.size() : named->second;
  for (const size_t index : pattern_rules) {
    if (index > first) break;
    HS_ASSIGN_OR_RETURN(const bool matches, rules[index].pattern.matches(module));
    if (matches) first = index;
  }
  if (first < rules.size()) {
    chosen = rules[first].scheme;
    chosen.zeros_minus_one = scheme.zeros_minus_one;
    chosen.format_stated = scheme.format_stated;
    rule_text = rules[first].text;
  }
  const bool known = chosen.bits == 4 || (chosen.bits == 8 && method != QuantMethod::kAwq);
  if (known) return chosen;
  return fail(fmt::format("{}: {} bits{} are not supported (4 and 8 are)", module, chosen.bits,
                          rule_text.empty() ? "" : fmt::format(" (rule '{}')", rule_text)),
              ErrorKind::kUnsupported);
}

Result<QuantConfig> QuantConfig::parse_object(const Json& object, std::string_view where) {
  if (!object.is_object()) return fail(fmt::format("{}: not an object", where));
  Fields in(object, where);
  QuantConfig out;
  std::string method = in.text("quant_method");
  HS_RETURN_IF_ERROR(in.status());
  out.writer = method;
  std::replace(method.begin(), method.end(), '_', '-');
  const bool bnb =
      method == "bitsandbytes" || (method.empty() && in.find("load_in_4bit") != nullptr);
  Status status;
  if (method == "gptq" || (method.empty() && in.find("damp_percent") != nullptr)) {
    status = read_gptq(in, out);
  } else if (method == "auto-round" || method == "intel/auto-round") {
    status = read_auto_round(in, out);
  } else if (method == "awq") {
    status = read_awq(in, out);
  } else if (method == "compressed-tensors") {
    status = read_compressed_tensors(in, out);
  } else if (bnb) {
    status = read_bitsandbytes(in, out);
  } else if (method == "fp8") {
    status = read_fp8(in, out);
  } else {
    return fail(
        fmt::format(
            "{}: quant_method '{}' is not supported (gptq, awq, auto-round, compressed-tensors, "
            "bitsandbytes 4-bit and fp8 are)",
            where, out.writer.substr(0, 100)),
        ErrorKind::kUnsupported);
  }
  if (!status) return fail(std::move(status).error());
  return out;
}

Result<QuantConfig> QuantConfig::parse(const Json& config) {
  const auto at = config.find("quantization_config");
  if (at == config.end() || at->is_null()) return QuantConfig{};
  return parse_object(*at, "config.json: quantization_config");
}

Result<QuantConfig> QuantConfig::load(const Directory& dir, const Json& config) {
  if (config.contains("quantization_config") || !dir.contains("quantize_config.json"))
    return parse(config);
  HS_ASSIGN_OR_RETURN(const Json object, read_json_file(dir, "quantize_config.json"));
  return parse_object(object, "quantize_config.json");
}

}  // namespace hotset
