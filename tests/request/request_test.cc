// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "request/generation_defaults.h"
#include "request/limits.h"
#include "request/validate.h"

namespace hotset {
namespace {

// Every row of the table: the limits are in, just beyond them is out, and the error names the
// field.
TEST(Limits, EveryNumberIsHeldAgainstItsRow) {
  for (const NumberLimit& limit : number_limits()) {
    const double step = limit.is_integer ? 1 : 1e-6;
    EXPECT_FALSE(check_number(limit.field, limit.max)) << limit.field;
    EXPECT_EQ(check_number(limit.field, limit.min).has_value(), limit.min_is_excluded);
    for (const double bad : {limit.min - step, limit.max + step, 1e30, -1e30, HUGE_VAL,
                             std::numeric_limits<double>::quiet_NaN()}) {
      const auto error = check_number(limit.field, bad);
      ASSERT_TRUE(error.has_value()) << limit.field << " " << bad;
      EXPECT_EQ(error->field, limit.field);
      EXPECT_NE(error->message.find(limit.field), std::string::npos);
    }
  }
}

TEST(Validate, AcceptsTheDefaults) {
  EXPECT_TRUE(validate(SamplingParams(), 100).has_value());
}

TEST(Validate, ChecksTokenIdsAgainstTheVocabulary) {
  for (const int32_t bad : {-1, 100, 2147483647}) {
    SamplingParams params;
    params.stop_token_ids = {bad};
    EXPECT_EQ(check_params(params, 100)->field, "stop_token_ids");
    SamplingParams biased;
    biased.logit_bias = {{bad, 1.0f}};
    EXPECT_EQ(check_params(biased, 100)->field, "logit_bias");
  }
  SamplingParams fine;
  fine.stop_token_ids = {0, 99};
  fine.logit_bias = {{99, -100.0f}};
  EXPECT_FALSE(check_params(fine, 100).has_value());
}

TEST(Validate, ChecksLists) {
  SamplingParams params;
  params.stop.assign(count_limit("stop") + 1, "x");
  EXPECT_EQ(check_params(params, 100)->field, "stop");
  params.stop = {""};
  EXPECT_EQ(check_params(params, 100)->field, "stop");
  params.stop = {std::string(kMaxStopBytes + 1, 'x')};
  EXPECT_EQ(check_params(params, 100)->field, "stop");
  params.stop = {"\xff"};
  EXPECT_EQ(check_params(params, 100)->field, "stop");
  params.stop = {std::string(kMaxStopBytes, 'x')};
  EXPECT_FALSE(check_params(params, 100).has_value());
  SamplingParams biased;
  biased.logit_bias = {{1, std::numeric_limits<float>::quiet_NaN()}};
  EXPECT_EQ(check_params(biased, 100)->field, "logit_bias");
}

TEST(Validate, MinTokensMustFitMaxTokens) {
  SamplingParams params;
  params.min_tokens = 5;
  EXPECT_FALSE(check_params(params, 100).has_value());
  params.max_tokens = 4;
  EXPECT_EQ(check_params(params, 100)->field, "min_tokens");
}

TEST(GenerationDefaults, ReadsTheReleaseFile) {
  const auto defaults = parse_generation_defaults(
      R"({"bos_token_id":151643,"pad_token_id":151643,"do_sample":true,
          "eos_token_id":[151645,151643],"temperature":0.7,"top_p":0.8,"top_k":20,
          "transformers_version":"4.57.0"})",
      R"({"eos_token_id":151645,"vocab_size":151936})");
  ASSERT_TRUE(defaults.has_value()) << defaults.error().message;
  EXPECT_EQ(defaults->eos_ids, (std::vector<int32_t>{151643, 151645}));
  EXPECT_EQ(defaults->params.temperature, 0.7);
  EXPECT_EQ(defaults->params.top_p, 0.8);
  EXPECT_EQ(defaults->params.top_k, 20);
}

TEST(GenerationDefaults, MissingFilesMeanNeutralValues) {
  const auto defaults = parse_generation_defaults("", R"({"text_config":{"eos_token_id":[3,2]}})");
  ASSERT_TRUE(defaults.has_value());
  EXPECT_EQ(defaults->eos_ids, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(defaults->params.temperature, 1);
  const auto greedy = parse_generation_defaults(R"({"do_sample":false,"temperature":0.9})", "");
  EXPECT_EQ(greedy->params.temperature, 0);
}

TEST(GenerationDefaults, RefusesNonsenseAndNamesIt) {
  for (const char* text :
       {"[1]", "{", R"({"temperature":"hot"})", R"({"top_p":7})", R"({"eos_token_id":"x"})",
        R"({"eos_token_id":[-1]})", R"({"eos_token_id":3000000000})", R"({"top_k":-7})"}) {
    const auto defaults = parse_generation_defaults(text, "");
    ASSERT_FALSE(defaults.has_value()) << text;
    EXPECT_EQ(defaults.error().message.rfind("generation_config.json", 0), 0u);
  }
}

}  // namespace
}  // namespace hotset
