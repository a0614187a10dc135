// SPDX-License-Identifier: Apache-2.0
// The whole forward pass against transformers' float32 logits, stored under golden/models: random
// models of odd shapes, and one per weight format on that format's dequantised weights.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "model/golden.h"
#include "model/language_model.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

constexpr double kExactTolerance = 1e-4;  // max |logit difference|
constexpr double kFastMeanKl = 1e-3;

std::vector<std::string> model_directories() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator("golden/models")) {
    if (fs::exists(entry.path() / "reference.safetensors"))
      names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::unique_ptr<LanguageModel> load(const std::string& name, const ModelOptions& options) {
  auto model = LanguageModel::load("golden/models/" + name, options, {});
  EXPECT_TRUE(model) << model.error().message;
  return model ? std::move(*model) : nullptr;
}

std::vector<float> run(LanguageModel& model, std::span<const int32_t> ids,
                       std::span<const size_t> cuts = {}) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(model.vocab_size()));
  auto sequence = model.new_sequence(static_cast<int64_t>(ids.size()));
  EXPECT_TRUE(sequence) << sequence.error().message;
  size_t at = 0;
  const auto extend = [&](size_t count) {
    const Status status = model.extend_all_logits(
        **sequence, ids.subspan(at, count),
        std::span(logits).subspan(at * static_cast<size_t>(model.vocab_size()),
                                  count * static_cast<size_t>(model.vocab_size())));
    EXPECT_TRUE(status) << status.error().message;
    at += count;
  };
  for (const size_t cut : cuts) {
    if (cut < ids.size()) extend(cut - at);
  }
  extend(ids.size() - at);
  return logits;
}

class Reference : public testing::TestWithParam<std::string> {};

TEST_P(Reference, ExactArithmeticMatchesTransformersOnEveryIsa) {
  const auto golden = golden::load("golden/models/" + GetParam() + "/reference.safetensors");
  for (const cpu::Isa isa : cpu::available_isas()) {
    auto model = load(GetParam(), {.cpu_threads = 2,
                                   .isa = isa,
                                   .arithmetic = cpu::Arithmetic::kExact,
                                   .kv_type = KvType::kF32});
    ASSERT_NE(model, nullptr);
    for (const auto& [name, tensor] : golden) {
      if (!name.starts_with("input_ids.")) continue;
      const auto& want = golden.at("logits." + name.substr(10)).floats;
      const auto difference =
          golden::compare_logits(want, run(*model, tensor.ints), model->vocab_size());
      EXPECT_LE(difference.max_abs, kExactTolerance)
          << name << " on " << cpu::isa_name(isa) << ", worst row " << difference.worst_row;
      EXPECT_EQ(difference.top1, 1.0) << name << " on " << cpu::isa_name(isa);
    }
  }
}

TEST_P(Reference, FastArithmeticStaysCloseOnEveryIsa) {
  const auto golden = golden::load("golden/models/" + GetParam() + "/reference.safetensors");
  for (const cpu::Isa isa : cpu::available_isas()) {
    auto model = load(GetParam(), {.cpu_threads = 2,
                                   .isa = isa,
                                   .arithmetic = cpu::Arithmetic::kFast,
                                   .kv_type = KvType::kBF16});
    ASSERT_NE(model, nullptr);
    const auto& ids = golden.at("input_ids.200").ints;
    const auto difference = golden::compare_logits(golden.at("logits.200").floats, run(*model, ids),
                                                   model->vocab_size());
    EXPECT_LE(difference.mean_kl, kFastMeanKl)
        << cpu::isa_name(isa) << ", max KL " << difference.max_kl;
    EXPECT_GE(difference.top1_or_tie, 0.99)
        << cpu::isa_name(isa) << ", without ties " << difference.top1;
  }
}

TEST_P(Reference, SplitPromptsAndContinuationsAreOnePass) {
  const auto golden = golden::load("golden/models/" + GetParam() + "/reference.safetensors");
  auto model = load(GetParam(), {.cpu_threads = 1,
                                 .isa = cpu::detect_isa(),
                                 .arithmetic = cpu::Arithmetic::kExact,
                                 .kv_type = KvType::kF32});
  ASSERT_NE(model, nullptr);
  const auto& ids = golden.at("input_ids.130").ints;
  const auto& want = golden.at("logits.130").floats;
  const std::vector<std::vector<size_t>> splits = {
      {1}, {3, 4}, {64}, {65, 66, 67}, {1, 2, 3, 128, 129}};
  for (const std::vector<size_t>& cuts : splits) {
    const auto difference =
        golden::compare_logits(want, run(*model, ids, cuts), model->vocab_size());
    EXPECT_LE(difference.max_abs, kExactTolerance)
        << "first cut " << cuts[0] << " of " << cuts.size();
  }
}

TEST_P(Reference, ThreadsDoNotChangeABit) {
  const auto golden = golden::load("golden/models/" + GetParam() + "/reference.safetensors");
  const auto& ids = golden.at("input_ids.65").ints;
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    auto model = load(GetParam(), {.cpu_threads = threads, .isa = cpu::detect_isa()});
    ASSERT_NE(model, nullptr);
    const std::vector<float> logits = run(*model, ids);
    if (threads == 1) first = logits;
    EXPECT_EQ(logits, first) << threads << " threads";
  }
}

TEST(LanguageModel, TwoRequestsWithoutALimitRunSideBySide) {
  const auto model = load("random-a", {.cpu_threads = 1, .max_num_seqs = 2});
  ASSERT_NE(model, nullptr);
  const auto first = model->new_sequence(model->max_tokens());
  ASSERT_TRUE(first) << first.error().message;
  const auto second = model->new_sequence(model->max_tokens());
  ASSERT_TRUE(second) << second.error().message;
  const Status again = model->reserve(**first, model->max_tokens());
  EXPECT_TRUE(again) << again.error().message;
}

INSTANTIATE_TEST_SUITE_P(Models, Reference, testing::ValuesIn(model_directories()),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace_if(
                               name.begin(), name.end(),
                               [](char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

TEST(ReferenceSet, IsThere) {
  EXPECT_GE(model_directories().size(), 3u);
}

}  // namespace
}  // namespace hotset
