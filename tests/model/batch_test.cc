// SPDX-License-Identifier: Apache-2.0
// Several sequences in one step give the bits that each of them gives alone, whatever their lengths
// and whatever sits beside them.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "model/language_model.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> model_directories() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator("golden/models")) {
    if (fs::exists(entry.path() / "reference.safetensors")) names.push_back(entry.path());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::unique_ptr<LanguageModel> load(const std::string& directory, cpu::Arithmetic arithmetic,
                                    int64_t prefill_chunk, int64_t max_num_seqs) {
  auto model = LanguageModel::load(directory,
                                   {.cpu_threads = 2,
                                    .isa = cpu::detect_isa(),
                                    .arithmetic = arithmetic,
                                    .max_model_len = 256,
                                    .max_num_seqs = max_num_seqs,
                                    .prefill_chunk = prefill_chunk},
                                   {});
  EXPECT_TRUE(model) << model.error().message;
  return model ? std::move(*model) : nullptr;
}

// Sequence s starts with a prompt of 1 + 13·s ids; its n-th further id is id_of(s, 100 + n).
int32_t id_of(const LanguageModel& model, size_t s, size_t n) {
  return static_cast<int32_t>((7919 * s + 104729 * n + 17) %
                              static_cast<size_t>(model.vocab_size()));
}

std::unique_ptr<SequenceState> start(LanguageModel& model, size_t s, std::vector<float>& logits) {
  auto sequence = model.new_sequence(128);
  EXPECT_TRUE(sequence) << sequence.error().message;
  std::vector<int32_t> prompt;
  for (size_t n = 0; n < 1 + 13 * s; ++n) prompt.push_back(id_of(model, s, n));
  const Status status = model.extend(**sequence, prompt, logits);
  EXPECT_TRUE(status) << status.error().message;
  return std::move(*sequence);
}

// The largest difference of the same steps made together and one by one.
void expect_equal_bits(LanguageModel& model, size_t num_seqs, size_t num_steps) {
  const auto vocab = static_cast<size_t>(model.vocab_size());
  std::vector<float> row(vocab), together(num_seqs * vocab);
  std::vector<std::unique_ptr<SequenceState>> batched, single;
  for (size_t s = 0; s < num_seqs; ++s) {
    batched.push_back(start(model, s, row));
    single.push_back(start(model, s, row));
  }
  for (size_t n = 0; n < num_steps; ++n) {
    std::vector<SequenceStep> steps;
    for (size_t s = 0; s < num_seqs; ++s) {
      steps.push_back({batched[s].get(), id_of(model, s, 100 + n)});
    }
    const Status status = model.extend_batch(steps, together);
    ASSERT_TRUE(status) << status.error().message;
    for (size_t s = 0; s < num_seqs; ++s) {
      ASSERT_TRUE(model.extend(*single[s], {&steps[s].id, 1}, row));
      const float* batch_row = together.data() + s * vocab;
      const auto differs = std::mismatch(row.begin(), row.end(), batch_row);
      EXPECT_EQ(differs.first, row.end())
          << "sequence " << s << " of " << num_seqs << ", step " << n << ", logit "
          << differs.first - row.begin() << ": alone " << *differs.first << ", together "
          << *differs.second;
    }
  }
}

TEST(Batch, RowsHaveTheBitsOfSingleSteps) {
  for (const std::string& directory : model_directories()) {
    SCOPED_TRACE(directory);
    for (const auto arithmetic : {cpu::Arithmetic::kExact, cpu::Arithmetic::kFast}) {
      const auto model = load(directory, arithmetic, 64, 10);
      ASSERT_NE(model, nullptr);
      expect_equal_bits(*model, 5, 3);
    }
  }
}

TEST(Batch, MoreSequencesThanAStepHoldsAreSeveralSteps) {
  const auto model = load("golden/models/random-a", cpu::Arithmetic::kFast, 2, 10);
  ASSERT_NE(model, nullptr);
  expect_equal_bits(*model, 5, 2);
}

TEST(Batch, RefusesForeignIdsAndFullSequences) {
  const auto model = load("golden/models/random-a", cpu::Arithmetic::kFast, 64, 2);
  ASSERT_NE(model, nullptr);
  std::vector<float> logits(static_cast<size_t>(model->vocab_size()));
  const auto sequence = start(*model, 0, logits);
  const SequenceStep foreign{sequence.get(), static_cast<int32_t>(model->vocab_size())};
  EXPECT_FALSE(model->extend_batch({&foreign, 1}, logits));
  const std::vector<int32_t> rest(255, 1);
  ASSERT_TRUE(model->extend(*sequence, rest, logits));
  const SequenceStep one_more{sequence.get(), 1};
  EXPECT_FALSE(model->extend_batch({&one_more, 1}, logits));
}

}  // namespace
}  // namespace hotset
