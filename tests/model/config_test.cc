// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;

Json release_config() {
  return Json::parse(
      R"({"model_type": "qwen3_next", "torch_dtype": "bfloat16", "vocab_size": 151936,
    "hidden_size": 2048, "num_hidden_layers": 48, "full_attention_interval": 4, "num_attention_heads": 16,
    "num_key_value_heads": 2, "head_dim": 256, "partial_rotary_factor": 0.25, "rope_theta": 10000000,
    "rope_scaling": null, "max_position_embeddings": 262144, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4, "rms_norm_eps": 1e-06, "num_experts": 512, "num_experts_per_tok": 10,
    "norm_topk_prob": true, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
    "intermediate_size": 5120, "decoder_sparse_step": 1, "mlp_only_layers": [], "tie_word_embeddings": false,
    "eos_token_id": 151645})");
}

TEST(ModelConfig, ReadsTheReleaseSpelling) {
  const auto config = parse_model_config(release_config(), "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->num_full_attention_layers(), 12);
  EXPECT_EQ(config->layer_types[3], MixerKind::kFullAttention);
  EXPECT_EQ(config->rotary_dim(), 64);
  EXPECT_EQ(config->qkvz_dim(), 12288);
  EXPECT_EQ(config->conv_dim(), 8192);
  EXPECT_EQ(config->eos_token_ids, std::vector<int64_t>{151645});
}

TEST(ModelConfig, ReadsTheTransformers5Spelling) {
  Json json = release_config();
  json.erase("rope_theta");
  json.erase("partial_rotary_factor");
  json.erase("full_attention_interval");
  json["rope_parameters"] = {{"rope_type", "yarn"},
                             {"rope_theta", 5e6},
                             {"partial_rotary_factor", 0.25},
                             {"factor", 4.0},
                             {"original_max_position_embeddings", 262144}};
  json["layer_types"] = Json::array();
  for (int i = 0; i < 48; ++i) json["layer_types"].push_back(i % 2 == 0 ? "mamba" : "attention");
  const auto config = parse_model_config(json, "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->rope.rope_theta, 5e6);
  EXPECT_EQ(config->rope.factor, 4);
  EXPECT_EQ(config->num_full_attention_layers(), 24);
}

TEST(ModelConfig, RefusesByFieldName) {
  const struct {
    const char* field;
    Json value;
  } cases[] = {{"model_type", "llama"},
               {"hidden_size", -1},
               {"hidden_size", nullptr},
               {"hidden_size", 1e300},
               {"vocab_size", "many"},
               {"num_hidden_layers", 1ull << 63},
               {"num_attention_heads", 15},
               {"linear_num_value_heads", 33},
               {"num_experts_per_tok", 513},
               {"rope_theta", nullptr},
               {"mlp_only_layers", {48}},
               {"layer_types", {"full_attention"}},
               {"rope_scaling", {{"rope_type", "linear"}}},
               {"eos_token_id", 151936},
               {"partial_rotary_factor", 0.001},
               {"attention_bias", true}};
  for (const auto& test : cases) {
    Json json = release_config();
    json[test.field] = test.value;
    const auto config = parse_model_config(json, "dir/config.json");
    ASSERT_FALSE(config) << test.field << " = " << test.value;
    const std::string& message = config.error().message;
    EXPECT_TRUE(message.starts_with("dir/config.json: ")) << message;
    if (std::string(test.field) != "rope_scaling") {
      EXPECT_NE(message.find(test.field), std::string::npos) << message;
    }
  }
}

}  // namespace
}  // namespace hotset
