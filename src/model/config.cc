// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace hotset {
namespace {

using json = nlohmann::ordered_json;

// Above any model of the family by orders of magnitude, far below where products overflow.
constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxExperts = 65536;

// Reads fields, remembers the first error, and names the file and the field in it.
class FieldReader {
 public:
  FieldReader(const json& object, std::string origin)
      : object_(object), origin_(std::move(origin)) {}

  [[nodiscard]] const json* find(const char* name) const {
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  int64_t integer(const char* name, int64_t low, int64_t high, int64_t fallback = -1) {
    const json* value = find(name);
    if (value == nullptr) {
      if (fallback < 0) problem(name, "is missing");
      return fallback;
    }
    if (!value->is_number_integer()) return problem(name, "is not an integer"), low;
    if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX}) {
      return problem(name, "is far too large"), low;
    }
    const auto number = value->get<int64_t>();
    if (number < low || number > high) {
      problem(name, fmt::format("is {}, outside {} … {}", number, low, high));
      return low;
    }
    return number;
  }

  double number(const char* name, double low, double high, double fallback) {
    const json* value = find(name);
    if (value == nullptr) return fallback;
    if (!value->is_number()) return problem(name, "is not a number"), fallback;
    const auto real = value->get<double>();
    if (!(real >= low && real <= high)) {
      problem(name, fmt::format("is {}, outside {} … {}", real, low, high));
      return fallback;
    }
    return real;
  }

  bool boolean(const char* name, bool fallback) {
    const json* value = find(name);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) return problem(name, "is not true or false"), fallback;
    return value->get<bool>();
  }

  std::string text(const char* name) {
    const json* value = find(name);
    if (value == nullptr) return {};
    if (!value->is_string()) return problem(name, "is not a string"), std::string();
    return value->get<std::string>();
  }

  void problem(const std::string& field, const std::string& what) {
    if (error_.empty()) error_ = fmt::format("{}: {} {}", origin_, field, what);
  }
  [[nodiscard]] bool ok() const { return error_.empty(); }
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  const json& object_;
  std::string origin_;
  std::string error_;
};

void read_trunk(FieldReader& in, ModelConfig& c) {
  c.model_type = in.text("model_type");
  if (c.model_type != "qwen3_next") {
    in.problem("model_type", fmt::format("is '{}'; hotset runs qwen3_next", c.model_type));
  }
  c.dtype = in.text("dtype");
  if (c.dtype.empty()) c.dtype = in.text("torch_dtype");
  c.vocab_size = in.integer("vocab_size", 1, kMaxDimension);
  c.hidden_size = in.integer("hidden_size", 1, kMaxDimension);
  c.num_hidden_layers = in.integer("num_hidden_layers", 1, kMaxLayers);
  c.max_position_embeddings = in.integer("max_position_embeddings", 1, int64_t{1} << 40);
  c.rms_norm_eps = in.number("rms_norm_eps", 0, 1, 1e-6);
  c.tie_word_embeddings = in.boolean("tie_word_embeddings", false);
  if (in.boolean("attention_bias", false)) in.problem("attention_bias", "true is not supported");
  if (const std::string act = in.text("hidden_act"); !act.empty() && act != "silu") {
    in.problem("hidden_act", fmt::format("is '{}'; this model family has silu", act));
  }
}

void read_mixers(FieldReader& in, ModelConfig& c) {
  c.num_attention_heads = in.integer("num_attention_heads", 1, kMaxDimension);
  c.num_key_value_heads = in.integer("num_key_value_heads", 1, kMaxDimension);
  c.head_dim = in.integer("head_dim", 2, 4096);
  c.linear_num_key_heads = in.integer("linear_num_key_heads", 1, 65536);
  c.linear_num_value_heads = in.integer("linear_num_value_heads", 1, 65536);
  c.linear_key_head_dim = in.integer("linear_key_head_dim", 1, 4096);
  c.linear_value_head_dim = in.integer("linear_value_head_dim", 1, 4096);
  c.linear_conv_kernel_dim = in.integer("linear_conv_kernel_dim", 2, 8, 4);
  if (!in.ok()) return;
  if (c.num_attention_heads % c.num_key_value_heads != 0) {
    in.problem("num_attention_heads", fmt::format("{} is not a multiple of num_key_value_heads {}",
                                                  c.num_attention_heads, c.num_key_value_heads));
  }
  if (c.linear_num_value_heads % c.linear_num_key_heads != 0) {
    in.problem("linear_num_value_heads",
               fmt::format("{} is not a multiple of linear_num_key_heads {}",
                           c.linear_num_value_heads, c.linear_num_key_heads));
  }
  if (c.num_attention_heads * c.head_dim > kMaxDimension || c.qkvz_dim() > kMaxDimension) {
    in.problem("head_dim", "times the number of heads is far too large");
  }
}

void read_mlp(FieldReader& in, ModelConfig& c) {
  c.num_experts = in.integer("num_experts", 0, kMaxExperts, 0);
  c.num_experts_per_tok = in.integer("num_experts_per_tok", 0, 1024, 0);
  c.norm_topk_prob = in.boolean("norm_topk_prob", true);
  c.moe_intermediate_size = in.integer("moe_intermediate_size", 0, kMaxDimension, 0);
  c.shared_expert_intermediate_size =
      in.integer("shared_expert_intermediate_size", 0, kMaxDimension, 0);
  c.intermediate_size = in.integer("intermediate_size", 0, kMaxDimension, 0);
  const int64_t step = in.integer("decoder_sparse_step", 1, kMaxLayers, 1);
  if (!in.ok()) return;
  c.layer_is_moe.assign(static_cast<size_t>(c.num_hidden_layers), false);
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    c.layer_is_moe[static_cast<size_t>(i)] = c.num_experts > 0 && (i + 1) % step == 0;
  }
  if (const json* dense = in.find("mlp_only_layers"); dense != nullptr) {
    if (!dense->is_array()) return in.problem("mlp_only_layers", "is not a list");
    for (const json& layer : *dense) {
      if (!layer.is_number_integer() || layer < 0 || layer >= c.num_hidden_layers) {
        return in.problem("mlp_only_layers", "names a layer that does not exist");
      }
      c.layer_is_moe[layer.get<size_t>()] = false;
    }
  }
  const bool any_moe = std::count(c.layer_is_moe.begin(), c.layer_is_moe.end(), true) > 0;
  if (any_moe && (c.num_experts_per_tok < 1 || c.num_experts_per_tok > c.num_experts)) {
    in.problem("num_experts_per_tok",
               fmt::format("is {} of {} experts", c.num_experts_per_tok, c.num_experts));
  }
  if (any_moe && (c.moe_intermediate_size < 1 || c.shared_expert_intermediate_size < 1)) {
    in.problem("moe_intermediate_size", "or shared_expert_intermediate_size is missing");
  }
  const bool any_dense = std::count(c.layer_is_moe.begin(), c.layer_is_moe.end(), false) > 0;
  if (any_dense && c.intermediate_size < 1) in.problem("intermediate_size", "is missing");
}

void read_layer_types(FieldReader& in, ModelConfig& c) {
  if (!in.ok()) return;
  c.layer_types.resize(static_cast<size_t>(c.num_hidden_layers));
  const json* types = in.find("layer_types");
  if (types == nullptr) {
    const int64_t interval = in.integer("full_attention_interval", 1, kMaxLayers, 4);
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
      c.layer_types[static_cast<size_t>(i)] =
          (i + 1) % interval == 0 ? MixerKind::kFullAttention : MixerKind::kLinearAttention;
    }
    return;
  }
  if (!types->is_array() || types->size() != c.layer_types.size()) {
    return in.problem("layer_types", fmt::format("is not a list of {} names", c.num_hidden_layers));
  }
  for (size_t i = 0; i < types->size(); ++i) {
    const json& type = (*types)[i];
    const std::string name = type.is_string() ? type.get<std::string>() : std::string();
    if (name == "full_attention" || name == "attention") {
      c.layer_types[i] = MixerKind::kFullAttention;
    } else if (name == "linear_attention" || name == "mamba") {
      c.layer_types[i] = MixerKind::kLinearAttention;
    } else {
      return in.problem("layer_types", fmt::format("entry {} is '{}'", i, name));
    }
  }
}

void read_rope_scaling(FieldReader& in, FieldReader& scaling, ModelConfig& c) {
  std::string type = scaling.text("rope_type");
  if (type.empty()) type = scaling.text("type");
  if (type.empty() || type == "default") return;
  if (type != "yarn") return in.problem("rope scaling", fmt::format("type '{}' is unknown", type));
  RopeParameters& rope = c.rope;
  rope.factor = scaling.number("factor", 1, 1024, 1);
  rope.original_max_position_embeddings = scaling.integer(
      "original_max_position_embeddings", 1, int64_t{1} << 40, c.max_position_embeddings);
  rope.beta_fast = scaling.number("beta_fast", 1e-6, 1e6, 32);
  rope.beta_slow = scaling.number("beta_slow", 1e-6, 1e6, 1);
  rope.truncate = scaling.boolean("truncate", true);
  rope.attention_factor = scaling.number("attention_factor", 0, 1e3, 0);
  const double mscale = scaling.number("mscale", 0, 1e3, 0);
  const double mscale_all = scaling.number("mscale_all_dim", 0, 1e3, 0);
  if (rope.attention_factor == 0 && mscale > 0 && mscale_all > 0 && rope.factor > 1) {
    const double log_factor = std::log(rope.factor);
    rope.attention_factor = (0.1 * mscale * log_factor + 1) / (0.1 * mscale_all * log_factor + 1);
  }
}

void read_rope(FieldReader& in, const json& object, const std::string& origin, ModelConfig& c) {
  const json* parameters = in.find("rope_parameters");  // transformers 5
  const json* scaling = in.find("rope_scaling");        // release files
  for (const json* part : {parameters, scaling}) {
    if (part != nullptr && !part->is_object()) return in.problem("rope_parameters", "is no object");
  }
  FieldReader where(parameters != nullptr ? *parameters : object, origin);
  c.rope.rope_theta = where.number("rope_theta", 1, 1e12, 0);
  if (c.rope.rope_theta == 0) where.problem("rope_theta", "is missing");
  // The partial factor stays at the top level in some re-saved files.
  c.rope.partial_rotary_factor = in.number("partial_rotary_factor", 1e-3, 1, 0.25);
  if (where.find("partial_rotary_factor") != nullptr) {
    c.rope.partial_rotary_factor = where.number("partial_rotary_factor", 1e-3, 1, 0.25);
  }
  const json* source = parameters != nullptr ? parameters : scaling;
  if (source != nullptr) {
    FieldReader scaling_fields(*source, origin);
    read_rope_scaling(in, scaling_fields, c);
    if (!scaling_fields.ok()) in.problem("rope scaling:", scaling_fields.error());
  }
  if (!where.ok()) in.problem("rope:", where.error());
  if (in.ok() && (c.rotary_dim() < 2 || c.rotary_dim() % 2 != 0)) {
    in.problem("partial_rotary_factor", fmt::format("gives {} rotary dims", c.rotary_dim()));
  }
}

void read_eos(FieldReader& in, ModelConfig& c) {
  const json* eos = in.find("eos_token_id");
  if (eos == nullptr) return;
  const json list = eos->is_array() ? *eos : json::array({*eos});
  for (const json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= c.vocab_size) {
      return in.problem("eos_token_id", "is not a token of the vocabulary");
    }
    c.eos_token_ids.push_back(id.get<int64_t>());
  }
}

}  // namespace

int64_t ModelConfig::rotary_dim() const {
  return static_cast<int64_t>(static_cast<double>(head_dim) * rope.partial_rotary_factor);
}

int64_t ModelConfig::num_full_attention_layers() const {
  return std::count(layer_types.begin(), layer_types.end(), MixerKind::kFullAttention);
}

int64_t ModelConfig::num_linear_attention_layers() const {
  return num_hidden_layers - num_full_attention_layers();
}

Result<ModelConfig> parse_model_config(const nlohmann::ordered_json& json,
                                       const std::string& origin) {
  if (!json.is_object()) return fail(fmt::format("{}: not a JSON object", origin));
  FieldReader in(json, origin);
  ModelConfig config;
  read_trunk(in, config);
  if (in.ok()) read_mixers(in, config);
  if (in.ok()) read_mlp(in, config);
  read_layer_types(in, config);
  if (in.ok()) read_rope(in, json, origin, config);
  if (in.ok()) read_eos(in, config);
  if (!in.ok()) return fail(in.error());
  return config;
}

}  // namespace hotset
