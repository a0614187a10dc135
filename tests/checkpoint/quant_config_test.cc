// SPDX-License-Identifier: Apache-2.0
// What a quantization_config may say: conventions that are honoured, settings that are refused with
// their reason, rules by module name, and patterns that cannot take long.
#include "checkpoint/quant_config.h"

#include <gtest/gtest.h>

#include <chrono>

#include "checkpoint/model_folder.h"

namespace hotset {
namespace {

Result<QuantConfig> parse(const std::string& object) {
  const auto config = parse_config_json(R"({"quantization_config":)" + object + "}", "config.json");
  EXPECT_TRUE(config) << config.error().message;
  if (!config) return fail("not JSON");
  return QuantConfig::parse(*config);
}

std::string compressed(const std::string& weights, const std::string& extra = "") {
  return R"({"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":)"
         R"({"group_0":{"targets":["Linear"],"weights":)" +
         weights + "}}" + extra + "}";
}

TEST(QuantConfig, Conventions) {
  EXPECT_EQ(QuantConfig::parse(Json::object())->method, QuantMethod::kNone);
  EXPECT_EQ(parse("null")->method, QuantMethod::kNone);

  auto gptq = parse(R"({"quant_method":"gptq","bits":4,"group_size":32,"sym":true,
                        "desc_act":true})");
  ASSERT_TRUE(gptq);
  EXPECT_EQ(gptq->scheme.group_size, 32);
  EXPECT_TRUE(gptq->scheme.zeros_minus_one);
  EXPECT_FALSE(gptq->scheme.format_stated);
  EXPECT_TRUE(gptq->scheme.desc_act);
  for (const char* key : {"checkpoint_format", "format"}) {
    gptq = parse(std::string(R"({"quant_method":"gptq","bits":4,")") + key + R"(":"gptq_v2"})");
    ASSERT_TRUE(gptq) << key;
    EXPECT_FALSE(gptq->scheme.zeros_minus_one);
    EXPECT_TRUE(gptq->scheme.format_stated);
  }
  EXPECT_EQ(parse(R"({"bits":4,"damp_percent":0.1})")->method, QuantMethod::kGptq);
  EXPECT_EQ(parse(R"({"quant_method":"auto-round","bits":4,
                      "packing_format":"auto_round:auto_gptq"})")
                ->method,
            QuantMethod::kGptq);
  EXPECT_EQ(parse(R"({"quant_method":"auto-round","bits":4,
                      "packing_format":"auto_round:auto_awq"})")
                ->method,
            QuantMethod::kAwq);
  EXPECT_EQ(parse(R"({"quant_method":"awq","w_bit":4,"q_group_size":64})")->scheme.group_size, 64);
  EXPECT_EQ(parse(R"({"quant_method":"bitsandbytes","load_in_4bit":true,
                      "bnb_4bit_quant_type":"nf4"})")
                ->method,
            QuantMethod::kBitsandbytes);
  const auto fp8 = parse(R"({"quant_method":"fp8","weight_block_size":[64,32]})");
  ASSERT_TRUE(fp8);
  EXPECT_EQ(fp8->fp8_block_rows, 64);
  EXPECT_EQ(fp8->fp8_block_cols, 32);
  const auto channel = parse(compressed(R"({"num_bits":8,"strategy":"channel"})"));
  ASSERT_TRUE(channel);
  EXPECT_EQ(channel->scheme_of("any.module")->group_size, -1);
  EXPECT_EQ(channel->scheme_of("any.module")->bits, 8);
}

struct Refusal {
  std::string object;
  const char* names;   // the field
  const char* reason;  // and what is wrong with it
};

TEST(QuantConfig, UnsupportedSettingsSayWhich) {
  const std::string gptq = R"({"quant_method":"gptq","bits":4,)";
  const std::string awq = R"({"quant_method":"awq","bits":4,)";
  const std::string bnb = R"({"quant_method":"bitsandbytes","load_in_4bit":true,)";
  const std::string fp8 = R"({"quant_method":"fp8",)";
  const Refusal refusals[] = {
      {"[]", "quantization_config", "not an object"},
      {"7", "quantization_config", "not an object"},
      {"{}", "quant_method", "not supported"},
      {R"({"quant_method":7})", "quant_method", "not a string"},
      {R"({"quant_method":"eetq"})", "'eetq'", "not supported"},
      {R"({"quant_method":"hqq"})", "'hqq'", "gptq, awq"},
      {R"({"quant_method":"mxfp4"})", "'mxfp4'", "not supported"},
      {gptq + R"("checkpoint_format":"marlin"})", "checkpoint_format", "'marlin'"},
      {gptq + R"("checkpoint_format":"bitblas"})", "checkpoint_format", "gptq and gptq_v2"},
      {gptq + R"("pack_dtype":"int16"})", "pack_dtype", "int32"},
      {gptq + R"("group_size":0})", "group_size", "0"},
      {gptq + R"("group_size":-2})", "group_size", "not an integer"},
      {gptq + R"("group_size":1.5})", "group_size", "not an integer"},
      {gptq + R"("group_size":18446744073709551615})", "group_size", "not an integer"},
      {gptq + R"("group_size":9223372036854775807})", "group_size", "not an integer"},
      {gptq + R"("group_size":"32"})", "group_size", "not an integer"},
      {gptq + R"("sym":"yes"})", "sym", "true or false"},
      {gptq + R"("desc_act":1})", "desc_act", "true or false"},
      {gptq + R"("dynamic":[]})", "dynamic", "not an object"},
      {gptq + R"("dynamic":{"+:.*":7}})", "dynamic", "'+:.*'"},
      {gptq + R"("dynamic":{"+:(":{}}})", "module pattern", "'('"},
      {gptq + R"("dynamic":{"+:.*":{"bits":"four"}}})", "bits", "not an integer"},
      {R"({"quant_method":"gptq","bits":0})", "bits", "not an integer in"},
      {R"({"quant_method":"gptq","bits":33})", "bits", "not an integer in"},
      {awq + R"("version":"gemv"})", "version", "'gemv'"},
      {awq + R"("version":"marlin"})", "version", "gemm is"},
      {awq + R"("zero_point":false})", "zero_point", "stores zero points"},
      {R"({"quant_method":"auto-round","packing_format":"auto_round:llm_compressor"})",
       "packing_format", "not supported"},
      {bnb + R"("load_in_8bit":true})", "load_in_8bit", "NF4"},
      {bnb + R"("_load_in_8bit":true})", "load_in_8bit", "NF4"},
      {bnb + R"("bnb_4bit_quant_type":"int4"})", "bnb_4bit_quant_type", "'int4'"},
      {fp8 + R"("fmt":"e5m2"})", "fmt", "e4m3"},
      {fp8 + R"("weight_block_size":[128]})", "weight_block_size", "pair"},
      {fp8 + R"("weight_block_size":[0,128]})", "weight_block_size", "positive"},
      {fp8 + R"("weight_block_size":[128,65537]})", "weight_block_size", "pair"},
      {fp8 + R"("weight_block_size":"128"})", "weight_block_size", "pair"},
      {R"({"quant_method":"compressed-tensors"})", "config_groups", "missing"},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{}})",
       "format", "'float-quantized'"},
      {R"({"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized"})", "format",
       "pack-quantized is"},
      {R"({"quant_method":"compressed-tensors","format":"marlin-24"})", "format", "'marlin-24'"},
      {R"({"quant_method":"compressed-tensors","config_groups":{"g":{"targets":["Linear"]}}})",
       "config_groups: g", "weights"},
      {compressed(R"({"type":"float","num_bits":4})"), "type", "'float'"},
      {compressed(R"({"strategy":"tensor"})"), "strategy", "group and channel"},
      {compressed(R"({"strategy":"group","group_size":0})"), "group_size", "0"},
      {compressed(R"({"num_bits":64})"), "num_bits", "not an integer"},
      {compressed(R"({})", R"(,"sparsity_config":{"format":"sparse-24-bitmask"})"),
       "sparsity_config", "'sparse-24-bitmask'"},
      {compressed(R"({})", R"(,"sparsity_config":{"format":24})"), "sparsity_config",
       "not a string"},
  };
  for (const Refusal& one : refusals) {
    SCOPED_TRACE(one.object);
    const auto config = parse(one.object);
    ASSERT_FALSE(config);
    EXPECT_NE(config.error().message.find(one.names), std::string::npos) << config.error().message;
    EXPECT_NE(config.error().message.find(one.reason), std::string::npos) << config.error().message;
  }
}

TEST(QuantConfig, BitsAreRefusedByModuleAndRule) {
  const auto config = parse(R"({"quant_method":"gptq","bits":4,
      "dynamic":{"+:.*gate":{"bits":3},"+:.*down":{"bits":8}}})");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->scheme_of("m.up")->bits, 4);
  EXPECT_EQ(config->scheme_of("m.down")->bits, 8);
  const auto refused = config->scheme_of("m.gate");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kUnsupported);
  for (const char* text : {"m.gate", "3 bits", "+:.*gate"}) {
    EXPECT_NE(refused.error().message.find(text), std::string::npos) << refused.error().message;
  }
  EXPECT_FALSE(parse(R"({"quant_method":"awq","bits":8})")->scheme_of("m"));
  EXPECT_FALSE(parse(R"({"quant_method":"gptq","bits":2})")->scheme_of("m"));
}

TEST(QuantConfig, DynamicRulesAreAnchoredAndTheFirstDecides) {
  const auto config = parse(R"({"quant_method":"gptq","bits":4,"group_size":128,
      "checkpoint_format":"gptq_v2","sym":false,
      "dynamic":{"-:.*shared_expert.*":{},
                 "+:model\\.layers\\.0\\.":{"group_size":32},
                 "model\\.layers\\.0\\.mlp":{"group_size":64},
                 "layers":{"group_size":16}}})");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->rules.size(), 4u);
  EXPECT_TRUE(config->rules[0].skip);
  EXPECT_EQ(config->scheme_of("model.layers.0.mlp.up")->group_size, 32);
  EXPECT_EQ(config->scheme_of("model.layers.1.mlp.up")->group_size, 128);
  EXPECT_EQ(config->scheme_of("layers.1")->group_size, 16);
  // What a rule does not say stays as it is.
  EXPECT_FALSE(config->scheme_of("model.layers.0.mlp.up")->zeros_minus_one);
  EXPECT_FALSE(config->scheme_of("model.layers.0.mlp.up")->symmetric);
}

TEST(QuantConfig, TargetsOfCompressedTensors) {
  const auto config = parse(R"({"quant_method":"compressed-tensors","config_groups":{
      "a":{"targets":["model.x","re:.*\\.y$"],"weights":{"group_size":32}},
      "b":{"targets":["Linear"],"weights":{"group_size":64}}}})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->scheme_of("model.x")->group_size, 32);
  EXPECT_EQ(config->scheme_of("model.xx")->group_size, 64);
  EXPECT_EQ(config->scheme_of("modelQx")->group_size, 64);  // the dot is a dot
  EXPECT_EQ(config->scheme_of("a.y")->group_size, 32);
  EXPECT_EQ(config->scheme_of("a.yy")->group_size, 64);
}

TEST(QuantConfig, PatternBombsAreBounded) {
  const std::string name(300, 'a');
  const std::string patterns[] = {"(a+)+$b",
                                  "(a|a)*b",
                                  "(a|aa)+$b",
                                  "(.*)*(.*)*(.*)*(.*)*b",
                                  "((a{1,100}){1,100}){1,100}b",
                                  "(?:(?:a?){50}a{50}){5}b",
                                  std::string(2000, '(') + std::string(2000, ')'),
                                  std::string(4097, 'a'),
                                  "(?R)*b",
                                  "(?1)(a(?1)?)*b",
                                  "a{65535}{65535}",
                                  "(*NO_JIT)(a+)+b",
                                  "(*LIMIT_MATCH=4000000000)(a+)+b",
                                  "\\C+",
                                  "\xff",
                                  "[",
                                  "(?<=a*)b"};
  for (const std::string& text : patterns) {
    SCOPED_TRACE(text.substr(0, 60));
    const auto begin = std::chrono::steady_clock::now();
    const auto pattern = NamePattern::compile(text);
    if (pattern) {
      const auto matches = pattern->matches(name);
      if (matches) {
        EXPECT_FALSE(*matches);
      } else {
        EXPECT_NE(matches.error().message.find("gave up"), std::string::npos);
      }
    } else {
      EXPECT_NE(pattern.error().message.find("module pattern"), std::string::npos);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(took.count(), 1.0);
  }
}

TEST(QuantConfig, TheFileBesideConfigJson) {
  const ModelFolder folder("quantize-config");
  folder.write("quantize_config.json", R"({"bits":4,"group_size":64,"damp_percent":0.1})");
  const auto dir = Directory::open(folder.text()).value();
  EXPECT_EQ(QuantConfig::load(dir, Json::object())->scheme.group_size, 64);
  const Json own = {{"quantization_config", {{"quant_method", "gptq"}, {"group_size", 32}}}};
  EXPECT_EQ(QuantConfig::load(dir, own)->scheme.group_size, 32);
  folder.write("quantize_config.json", R"({"bits":4,"bits":8})");
  const auto refused = QuantConfig::load(dir, Json::object());
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("quantize_config.json"), std::string::npos);
}

TEST(QuantConfig, WholeNamesAreManyAndPatternsFew) {
  std::string names = R"("re:.*\\.m7$")";
  for (int i = 0; i < 60'000; ++i) names += ",\"model.experts.m" + std::to_string(i) + '"';
  const auto many = parse(
      R"({"quant_method":"compressed-tensors","config_groups":{
      "a":{"targets":[)" +
      names + R"(],"weights":{"group_size":32}},
      "b":{"targets":["Linear"],"weights":{"group_size":64}}}})");
  ASSERT_TRUE(many) << many.error().message;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 70'000; ++i) {
    const auto scheme = many->scheme_of("model.experts.m" + std::to_string(i));
    ASSERT_TRUE(scheme) << scheme.error().message;
    ASSERT_EQ(scheme->group_size, i < 60'000 ? 32 : 64) << i;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count(), 10) << "rules are looked up one by one";

  const auto dynamic = [](const std::string& end, int count) {
    std::string rules;
    for (int i = 0; i < count; ++i) {
      rules += (i > 0 ? ",\"+:" : "\"+:") + std::string("^m\\\\.e") + std::to_string(i) + end +
               R"(":{"group_size":32})";
    }
    return parse(R"({"quant_method":"gptq","bits":4,"dynamic":{)" + rules + "}}");
  };
  EXPECT_TRUE(dynamic(".*", 512));
  const auto refused = dynamic(".*", 513);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("more than 512 patterns"), std::string::npos)
      << refused.error().message;
  const auto whole = dynamic("$", 2000);
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_EQ(whole->scheme_of("m.e77")->group_size, 32);
  EXPECT_EQ(whole->scheme_of("mxe77")->group_size, 128);
  EXPECT_EQ(whole->scheme_of("m.e777x")->group_size, 128);
}

TEST(QuantConfig, TheFirstRuleDecidesWhetherNameOrPattern) {
  const auto config = parse(R"({"quant_method":"compressed-tensors","config_groups":{
      "a":{"targets":["m.one"],"weights":{"group_size":32}},
      "b":{"targets":["re:m.*"],"weights":{"group_size":64}},
      "c":{"targets":["m.two"],"weights":{"group_size":96}}}})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->scheme_of("m.one")->group_size, 32);
  EXPECT_EQ(config->scheme_of("m.two")->group_size, 64);
}

}  // namespace
}  // namespace hotset
