// SPDX-License-Identifier: Apache-2.0
#include "synth_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "synth_tokenizer.h"

namespace hotset {
namespace {

constexpr SynthModel kQwen3Next = {
    .name = "Qwen/Qwen3-Next-80B-A3B-Instruct",
    .vocab_size = 151936,
    .hidden_size = 2048,
    .num_hidden_layers = 48,
    .full_attention_interval = 4,
    .num_attention_heads = 16,
    .num_key_value_heads = 2,
    .head_dim = 256,
    .rope_theta = 1e7,
    .linear_num_key_heads = 16,
    .linear_num_value_heads = 32,
    .linear_head_dim = 128,
    .linear_conv_kernel_dim = 4,
    .num_experts = 512,
    .num_experts_per_tok = 10,
    .moe_intermediate_size = 512,
    .shared_expert_intermediate_size = 512,
    .max_position_embeddings = 262144,
};

constexpr SynthModel renamed(SynthModel model, const char* name, double rope_theta) {
  model.name = name;
  model.rope_theta = rope_theta;
  return model;
}

constexpr SynthModel kModels[] = {
    kQwen3Next,
    renamed(kQwen3Next, "Qwen/Qwen3-Next-80B-A3B-Thinking", 1e7),
    renamed(kQwen3Next, "Qwen/Qwen3-Coder-Next", 5e6),
    {
        .name = "tiny",
        .vocab_size = 2048,
        .hidden_size = 256,
        .num_hidden_layers = 4,
        .full_attention_interval = 4,
        .num_attention_heads = 4,
        .num_key_value_heads = 2,
        .head_dim = 64,
        .rope_theta = 1e7,
        .linear_num_key_heads = 2,
        .linear_num_value_heads = 4,
        .linear_head_dim = 64,
        .linear_conv_kernel_dim = 4,
        .num_experts = 32,
        .num_experts_per_tok = 4,
        .moe_intermediate_size = 128,
        .shared_expert_intermediate_size = 128,
        .max_position_embeddings = 32768,
    },
};

using Json = nlohmann::ordered_json;

Json quantization_config(const SynthOptions& options) {
  switch (options.format) {
    case SynthFormat::kGptq:
      return {{"quant_method", "gptq"}, {"bits", 4},
              {"group_size", 128},      {"sym", true},
              {"desc_act", false},      {"checkpoint_format", "gptq"},
              {"pack_dtype", "int32"},  {"lm_head", false}};
    case SynthFormat::kAwq:
      return {{"quant_method", "awq"}, {"bits", 4},         {"group_size", 128},
              {"zero_point", true},    {"version", "gemm"}, {"modules_to_not_convert", nullptr}};
    case SynthFormat::kCompressedTensors: {
      const Json weights = {{"num_bits", options.code_bits},
                            {"type", "int"},
                            {"symmetric", true},
                            {"strategy", "group"},
                            {"group_size", 128},
                            {"actorder", nullptr},
                            {"dynamic", false}};
      const Json group = {{"targets", {"Linear"}},
                          {"weights", weights},
                          {"input_activations", nullptr},
                          {"output_activations", nullptr}};
      return {{"quant_method", "compressed-tensors"},
              {"format", "pack-quantized"},
              {"quantization_status", "compressed"},
              {"config_groups", {{"group_0", group}}},
              {"ignore",
               {"lm_head", "re:.*mlp.gate$", "re:.*shared_expert_gate$", "re:.*in_proj_ba$"}}};
    }
    case SynthFormat::kNf4:
      return {
          {"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", false},
          {"bnb_4bit_compute_dtype", "bfloat16"},
          {"bnb_4bit_quant_storage", "uint8"},
          {"llm_int8_skip_modules", {"lm_head", "mlp.gate", "shared_expert_gate", "in_proj_ba"}}};
    case SynthFormat::kFp8:
      return {{"quant_method", "fp8"},
              {"fmt", "e4m3"},
              {"activation_scheme", "dynamic"},
              {"weight_block_size", {128, 128}},
              {"modules_to_not_convert",
               {"lm_head", "mlp.gate", "mlp.shared_expert_gate", "linear_attn.in_proj_ba",
                "linear_attn.conv1d"}}};
    case SynthFormat::kBf16:
      break;
  }
  return nullptr;
}

}  // namespace

std::vector<std::string> synth_model_names() {
  std::vector<std::string> names;
  for (const SynthModel& model : kModels) names.emplace_back(model.name);
  return names;
}

Result<SynthModel> find_synth_model(const SynthOptions& options) {
  const auto* found = std::find_if(std::begin(kModels), std::end(kModels),
                                   [&](const SynthModel& m) { return options.like == m.name; });
  if (found == std::end(kModels)) {
    return fail(fmt::format("--like {}: no such model; there are: {}", options.like,
                            fmt::join(synth_model_names(), ", ")));
  }
  if (options.num_layers && (*options.num_layers < 1 || *options.num_layers > 1000)) {
    return fail(fmt::format("--layers {}: must be 1 … 1000", *options.num_layers));
  }
  SynthModel model = *found;
  model.num_hidden_layers = options.num_layers.value_or(model.num_hidden_layers);
  model.bos_token_id = first_special_token(model.vocab_size);
  model.eos_token_id = model.bos_token_id + 2;
  return model;
}

std::string synth_config_json(const SynthModel& m, const SynthOptions& options) {
  Json config = {{"architectures", {"Qwen3NextForCausalLM"}},
                 {"attention_bias", false},
                 {"attention_dropout", 0.0},
                 {"decoder_sparse_step", 1},
                 {"full_attention_interval", m.full_attention_interval},
                 {"head_dim", m.head_dim},
                 {"hidden_act", "silu"},
                 {"hidden_size", m.hidden_size},
                 {"initializer_range", 0.02},
                 {"intermediate_size", m.hidden_size * 5 / 2},
                 {"linear_conv_kernel_dim", m.linear_conv_kernel_dim},
                 {"linear_key_head_dim", m.linear_head_dim},
                 {"linear_num_key_heads", m.linear_num_key_heads},
                 {"linear_num_value_heads", m.linear_num_value_heads},
                 {"linear_value_head_dim", m.linear_head_dim},
                 {"max_position_embeddings", m.max_position_embeddings},
                 {"mlp_only_layers", Json::array()},
                 {"model_type", "qwen3_next"},
                 {"moe_intermediate_size", m.moe_intermediate_size},
                 {"norm_topk_prob", true},
                 {"num_attention_heads", m.num_attention_heads},
                 {"num_experts", m.num_experts},
                 {"num_experts_per_tok", m.num_experts_per_tok},
                 {"num_hidden_layers", m.num_hidden_layers},
                 {"num_key_value_heads", m.num_key_value_heads},
                 {"output_router_logits", false},
                 {"partial_rotary_factor", 0.25},
                 {"rms_norm_eps", 1e-6},
                 {"rope_scaling", nullptr},
                 {"rope_theta", m.rope_theta},
                 {"router_aux_loss_coef", 0.001},
                 {"shared_expert_intermediate_size", m.shared_expert_intermediate_size},
                 {"tie_word_embeddings", false},
                 {"torch_dtype", "bfloat16"},
                 {"use_cache", true},
                 {"use_sliding_window", false},
                 {"vocab_size", m.vocab_size}};
  if (m.bos_token_id >= 0) config["bos_token_id"] = m.bos_token_id;
  if (m.eos_token_id >= 0) config["eos_token_id"] = m.eos_token_id;
  if (Json quantization = quantization_config(options); !quantization.is_null()) {
    config["quantization_config"] = std::move(quantization);
  }
  return config.dump(2) + "\n";
}

}  // namespace hotset
