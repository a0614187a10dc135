// SPDX-License-Identifier: Apache-2.0
// hotset inspect: what a checkpoint holds, from its headers alone.
#include <fmt/format.h>

#include <string>
#include <utility>

#include "loaded_model.h"
#include "report_error.h"
#include "server/strict_json.h"
#include "terminal.h"
#include "verbs.h"

namespace hotset {
namespace {

void print_line(const Style& style, const char* label, const std::string& value) {
  fmt::print("  {}{:<16}{}{}\n", style.dim, label, style.reset, value);
}

void print_config(const Style& style, const ModelSummary& summary) {
  const ModelConfig& c = summary.config;
  print_line(style, "model type", fmt::format("{}, {}", c.model_type, c.dtype));
  print_line(style, "quantization", summary.quantization);
  print_line(
      style, "layers",
      fmt::format("{} ({} gated attention, {} gated DeltaNet), width {}", c.num_hidden_layers,
                  c.num_full_attention_layers(), c.num_linear_attention_layers(), c.hidden_size));
  print_line(style, "attention",
             fmt::format("{} heads of {}, {} key/value heads, rotary {}", c.num_attention_heads,
                         c.head_dim, c.num_key_value_heads, c.rotary_dim()));
  print_line(style, "delta-net",
             fmt::format("{} key heads of {}, {} value heads of {}, convolution {}",
                         c.linear_num_key_heads, c.linear_key_head_dim, c.linear_num_value_heads,
                         c.linear_value_head_dim, c.linear_conv_kernel_dim));
  print_line(
      style, "experts",
      fmt::format("{}, {} a token, width {}, shared {}", c.num_experts, c.num_experts_per_tok,
                  c.moe_intermediate_size, c.shared_expert_intermediate_size));
  print_line(style, "vocabulary", format_with_commas(c.vocab_size));
  print_line(style, "context",
             fmt::format("{} tokens", format_with_commas(c.max_position_embeddings)));
}

void print_list(const char* title, const std::vector<std::string>& lines) {
  constexpr size_t kMaxShown = 10;
  if (lines.empty()) return;
  fmt::print("\n{} ({})\n", title, lines.size());
  for (size_t i = 0; i < lines.size() && i < kMaxShown; ++i) fmt::print("  {}\n", lines[i]);
  if (lines.size() > kMaxShown) fmt::print("  … and {} more\n", lines.size() - kMaxShown);
}

void print_text(const std::string& name, const ModelSummary& summary) {
  const Style style = stdout_style();
  fmt::print("{}{}{}\n", style.bold, name, style.reset);
  print_line(style, "directory", summary.directory);
  print_config(style, summary);
  fmt::print("\n");
  Table table({"component", "tensors", "parameters", "in files", "in memory", "formats"},
              {false, true, true, true, true, false});
  int64_t num_parameters = 0;
  for (const ComponentSummary& part : summary.components) {
    num_parameters += part.num_parameters;
    table.add_row({part.name, format_with_commas(part.num_tensors),
                   format_count(part.num_parameters), format_bytes(part.file_bytes),
                   format_bytes(part.memory_bytes), part.formats_text()});
  }
  table.add_row({"total", format_with_commas(summary.num_tensors), format_count(num_parameters),
                 format_bytes(summary.file_bytes), format_bytes(summary.memory_bytes), ""});
  fmt::print("{}\n", table.to_string(style));
  print_line(style, "per token",
             fmt::format("{} of KV cache", format_bytes(summary.kv_bytes_per_token)));
  print_line(style, "per sequence",
             fmt::format("{} of recurrent state", format_bytes(summary.state_bytes_per_sequence)));
  if (summary.num_mtp_tensors > 0) {
    print_line(style, "MTP head", fmt::format("{} tensors", summary.num_mtp_tensors));
  }
  print_list("Notes", summary.notes);
  print_list("Warnings", summary.warnings);
  print_list("Tensors that nothing reads", summary.unknown_tensors);
}

Json config_json(const ModelConfig& c) {
  return {{"model_type", c.model_type},
          {"dtype", c.dtype},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_full_attention_layers", c.num_full_attention_layers()},
          {"num_linear_attention_layers", c.num_linear_attention_layers()},
          {"hidden_size", c.hidden_size},
          {"num_attention_heads", c.num_attention_heads},
          {"num_key_value_heads", c.num_key_value_heads},
          {"head_dim", c.head_dim},
          {"linear_num_key_heads", c.linear_num_key_heads},
          {"linear_num_value_heads", c.linear_num_value_heads},
          {"num_experts", c.num_experts},
          {"num_experts_per_tok", c.num_experts_per_tok},
          {"moe_intermediate_size", c.moe_intermediate_size},
          {"vocab_size", c.vocab_size},
          {"max_position_embeddings", c.max_position_embeddings}};
}

void print_json(const std::string& name, const ModelSummary& summary) {
  Json json;
  json["name"] = name;
  json["directory"] = summary.directory;
  json["quantization"] = summary.quantization;
  json["config"] = config_json(summary.config);
  json["components"] = Json::array();
  for (const ComponentSummary& part : summary.components) {
    json["components"].push_back({{"name", part.name},
                                  {"formats", part.formats_text()},
                                  {"num_tensors", part.num_tensors},
                                  {"num_parameters", part.num_parameters},
                                  {"file_bytes", part.file_bytes},
                                  {"memory_bytes", part.memory_bytes}});
  }
  json["num_tensors"] = summary.num_tensors;
  json["num_mtp_tensors"] = summary.num_mtp_tensors;
  json["file_bytes"] = summary.file_bytes;
  json["memory_bytes"] = summary.memory_bytes;
  json["kv_bytes_per_token"] = summary.kv_bytes_per_token;
  json["state_bytes_per_sequence"] = summary.state_bytes_per_sequence;
  json["notes"] = summary.notes;
  json["warnings"] = summary.warnings;
  json["unknown_tensors"] = summary.unknown_tensors;
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

Status inspect(const InspectOptions& options) {
  HS_ASSIGN_OR_RETURN(const ModelOptions model_options, to_model_options(options.model));
  HS_ASSIGN_OR_RETURN(const ResolvedModel resolved, find_model(options.model));
  HS_ASSIGN_OR_RETURN(const ModelSummary summary, inspect_model(resolved.directory, model_options));
  if (options.json) {
    print_json(resolved.name, summary);
  } else {
    print_text(resolved.name, summary);
  }
  return {};
}

}  // namespace

int run_inspect(const InspectOptions& options) {
  const Status status = inspect(options);
  return status ? kExitFine : report_error(status.error());
}

}  // namespace hotset
