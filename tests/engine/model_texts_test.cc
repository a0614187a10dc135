// SPDX-License-Identifier: Apache-2.0
// The engine over the repository's model: a request's tokens and log-probabilities are the same,
// to the bit, when it has the engine for itself and when others come and go beside it.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/engine.h"
#include "model/language_model.h"

namespace hotset {
namespace {

#ifdef HOTSET_TEST_ON_GPU
constexpr Device kDevice = Device::kCuda;
#else
constexpr Device kDevice = Device::kCpu;
#endif

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  bool operator==(const Answer&) const = default;
};

// Prompts of 3 to 90 ids; greedy, drawn from few, drawn from all, with penalties, with
// log-probabilities.
Request request_of(int64_t n, int64_t vocab_size) {
  Request request{"id", {}, {}};
  for (int64_t i = 0; i < 3 + n * 37 % 88; ++i) {
    request.prompt_ids.push_back(static_cast<int32_t>((7919 * n + 104729 * i + 17) % vocab_size));
  }
  SamplingParams& params = request.params;
  params.max_tokens = 12 + n % 4 * 9;
  params.ignore_eos = true;
  params.seed = 100 + n;
  params.temperature = n % 3 == 0 ? 0 : 0.9;
  if (n % 3 == 1) params.top_k = 20;
  if (n % 4 == 1) params.repetition_penalty = 1.1;
  if (n % 5 == 2) params.num_logprobs = 3;
  return request;
}

Answer read_all(TokenStream& stream) {
  Answer answer;
  while (true) {
    const TokenEvent event = stream.next();
    if (event.token) {
      answer.tokens.push_back(*event.token);
      answer.logprobs.push_back(event.logprob);
      for (const TokenLogprob& top : event.top_logprobs) answer.logprobs.push_back(top.logprob);
    }
    if (!event.finish) continue;
    EXPECT_EQ(*event.finish, FinishReason::kLength) << event.error.message;
    return answer;
  }
}

std::vector<Answer> answers(LanguageModel& model, size_t max_num_seqs) {
  constexpr int64_t kNumRequests = 9;
  const int64_t num_valid = model.vocab_size() - 3;
  auto engine = Engine::start(
      model,
      {.num_valid_tokens = num_valid, .max_num_seqs = max_num_seqs, .num_kept_sequences = 0});
  EXPECT_TRUE(engine) << engine.error().message;
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int64_t n = 0; n < kNumRequests; ++n) {
    auto stream = (*engine)->submit(request_of(n, num_valid));
    EXPECT_TRUE(stream) << stream.error().message;
    streams.push_back(*stream);
  }
  std::vector<Answer> out;
  for (const auto& stream : streams) out.push_back(read_all(*stream));
  return out;
}

TEST(ModelTexts, AreThoseThatRequestsGetAlone) {
  std::vector<Answer> alone;
  for (const int64_t max_slots : {-1, 100, 0}) {  // of 256 experts, on a GPU
    auto loaded = LanguageModel::load("../models/demo",
                                      {.device = kDevice,
                                       .max_expert_slots = max_slots,
                                       .cpu_threads = 1,
                                       .pin_threads = false,
                                       .isa = cpu::detect_isa(),
                                       .max_model_len = 512,
                                       .max_num_seqs = 6,
                                       .prefill_chunk = 32},
                                      {});
    ASSERT_TRUE(loaded) << loaded.error().message;
    LanguageModel& model = **loaded;
    ASSERT_TRUE(model.prepare_batches(6));
    if (alone.empty()) alone = answers(model, 1);
    for (const Answer& answer : alone) ASSERT_GE(answer.tokens.size(), 12u);
    for (const size_t max_num_seqs : {2, 6}) {
      const std::vector<Answer> together = answers(model, max_num_seqs);
      for (size_t n = 0; n < alone.size(); ++n) {
        EXPECT_EQ(together[n].tokens, alone[n].tokens) << n << " beside " << max_num_seqs - 1;
        EXPECT_TRUE(together[n] == alone[n]) << "log-probabilities of " << n;
      }
    }
    if (kDevice == Device::kCpu) break;
  }
}

}  // namespace
}  // namespace hotset
