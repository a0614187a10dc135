// SPDX-License-Identifier: Apache-2.0
// The step loop against a scripted model: order, turns, cancel, limits, faults, reuse.
#include <chrono>
#include <limits>
#include <thread>

#include "engine/engine_fixture.h"

namespace hotset {
namespace {

using test::EngineFixture;
using test::kEos;
using test::kSoon;
using test::Outcome;
using test::read_all;
using test::with_max_tokens;

TEST(Engine, GeneratesUntilTheEndOfTextId) {
  EngineFixture f;
  const Outcome out = read_all(*f.submit({50, 197}));
  EXPECT_EQ(out.tokens, (std::vector<int32_t>{198, 199, 200, kEos}));
  EXPECT_EQ(out.finish, FinishReason::kStop);
  EXPECT_EQ(out.stats.num_prompt_tokens, 2);
  EXPECT_EQ(out.stats.num_output_tokens, 4);
  EXPECT_GE(out.stats.prefill_s, 0);
}

TEST(Engine, StopsAtMaxTokensAndAtTheEndOfTheContext) {
  EngineFixture f({}, {.max_tokens = 10});
  EXPECT_EQ(read_all(*f.submit({20}, with_max_tokens(3))).tokens,
            (std::vector<int32_t>{21, 22, 23}));
  const Outcome out = read_all(*f.submit({20, 21, 22}));
  EXPECT_EQ(out.finish, FinishReason::kLength);
  EXPECT_EQ(out.tokens.size(), 7u) << "3 + 7 = 10 tokens of context";
}

TEST(Engine, HonoursStopIdsIgnoreEosAndMinTokens) {
  EngineFixture f;
  SamplingParams params;
  params.stop_token_ids = {103};
  EXPECT_EQ(read_all(*f.submit({100}, params)).tokens, (std::vector<int32_t>{101, 102, 103}));
  SamplingParams ignoring = with_max_tokens(4);
  ignoring.ignore_eos = true;
  EXPECT_EQ(read_all(*f.submit({200}, ignoring)).tokens, (std::vector<int32_t>{kEos, 10, 11, 12}));
  SamplingParams patient;
  patient.min_tokens = 2;
  const Outcome out = read_all(*f.submit({200}, patient));
  EXPECT_GE(out.tokens.size(), 3u);
  EXPECT_NE(out.tokens[0], kEos);
}

TEST(Engine, FeedsLongPromptsInChunks) {
  EngineFixture f({}, {.prefill_chunk = 8});
  read_all(*f.submit(std::vector<int32_t>(20, 150), with_max_tokens(1)));
  EXPECT_EQ(f.model.num_extends, 3);
  EXPECT_EQ(f.model.num_tokens_fed, 20);
}

TEST(Engine, RefusesWhatItCannotRun) {
  EngineFixture f({}, {.max_tokens = 8});
  const auto refuse = [&](std::vector<int32_t> prompt) {
    const auto stream = f.engine->submit({"id", std::move(prompt), {}});
    EXPECT_FALSE(stream.has_value());
    return stream ? std::string() : stream.error().message;
  };
  EXPECT_NE(refuse({}).find("empty"), std::string::npos);
  EXPECT_NE(refuse({300}).find("300"), std::string::npos);
  EXPECT_NE(refuse({-1}).find("-1"), std::string::npos);
  EXPECT_NE(refuse(std::vector<int32_t>(8, 1)).find("maximum context length is 8"),
            std::string::npos);
}

TEST(Engine, AnswersWithTryLaterWhenTheQueueIsFull) {
  EngineFixture f({.max_num_seqs = 1, .max_queued = 2});
  f.model.close_gate();
  auto running = f.submit({100}, with_max_tokens(1));
  while (f.engine->counters().num_running == 0) std::this_thread::yield();
  auto first = f.submit({100}, with_max_tokens(1));
  auto second = f.submit({100}, with_max_tokens(1));
  const auto refused = f.engine->submit({"id", {100}, {}});
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().kind, ErrorKind::kResource);
  f.model.open_gate();
  for (auto* stream : {&running, &first, &second}) {
    EXPECT_EQ(read_all(**stream).finish, FinishReason::kLength);
  }
}

TEST(Engine, CancelEndsWithinOneStep) {
  EngineFixture f({}, {.extend_time = std::chrono::milliseconds(2)});
  auto stream = f.submit({10});
  ASSERT_TRUE(stream->next_within(kSoon).has_value());
  stream->cancel();
  const int64_t extends_at_cancel = f.model.num_extends;
  EXPECT_EQ(read_all(*stream).finish, FinishReason::kCancelled);
  EXPECT_LE(f.model.num_extends, extends_at_cancel + 1);
}

TEST(Engine, CancelInTheQueueAndInThePrefill) {
  EngineFixture f({.max_num_seqs = 1}, {.extend_time = std::chrono::milliseconds(2)});
  auto prefilling = f.submit(std::vector<int32_t>(2000, 150));
  auto waiting = f.submit({100});
  while (f.model.num_extends == 0) std::this_thread::yield();
  waiting->cancel();
  EXPECT_EQ(read_all(*waiting).finish, FinishReason::kCancelled);
  prefilling->cancel();
  const Outcome out = read_all(*prefilling);
  EXPECT_EQ(out.finish, FinishReason::kCancelled);
  EXPECT_EQ(out.stats.num_output_tokens, 0);
  EXPECT_LT(f.model.num_tokens_fed, 2000);
}

TEST(Engine, SequencesTakeTurns) {
  EngineFixture f({.max_num_seqs = 2}, {.extend_time = std::chrono::microseconds(200)});
  auto slow = f.submit({10});  // 190 tokens
  auto quick = f.submit({100}, with_max_tokens(3));
  EXPECT_EQ(read_all(*quick).tokens, (std::vector<int32_t>{101, 102, 103}));
  EXPECT_FALSE(slow->is_cancelled());
  EXPECT_EQ(read_all(*slow).tokens.size(), 191u);
}

TEST(Engine, AFaultInAPromptEndsItsOwnRequestOnly) {
  EngineFixture f({.max_num_seqs = 3});
  f.model.set_fault([](const std::vector<int32_t>& ids) -> Status {
    if (ids[0] == 66) return fail("injected", ErrorKind::kInternal);
    return {};
  });
  f.model.close_gate();
  auto healthy = f.submit({190});
  auto faulty = f.submit({66, 67});
  auto other = f.submit({195});
  f.model.open_gate();
  const Outcome out = read_all(*faulty);
  EXPECT_EQ(out.finish, FinishReason::kError);
  EXPECT_EQ(out.error.message, "injected");
  EXPECT_EQ(read_all(*healthy).tokens.size(), 11u);
  EXPECT_EQ(read_all(*other).tokens.size(), 6u);
  EXPECT_EQ(read_all(*f.submit({199})).tokens, (std::vector<int32_t>{200, kEos}));
}

TEST(Engine, LogitsThatAreNotNumbersEndTheRequest) {
  EngineFixture f;
  f.model.set_logits_hook([](const std::vector<int32_t>& ids, std::span<float> logits) {
    if (ids[0] == 66 && ids.size() > 4) logits[7] = std::numeric_limits<float>::quiet_NaN();
  });
  const Outcome out = read_all(*f.submit({66}));
  EXPECT_EQ(out.finish, FinishReason::kError);
  EXPECT_EQ(out.error.message.rfind("numerical", 0), 0u);
  EXPECT_EQ(read_all(*f.submit({199})).finish, FinishReason::kStop);
}

// The largest logits settle a greedy answer; five candidates are more than the model hands over.
TEST(Engine, SamplesFromTheLargestLogitsAndAsksForAllWhereTheseDoNotSettle) {
  EngineFixture with({}, {.has_heads = true}), without;
  EXPECT_EQ(read_all(*with.submit({50, 150})).tokens, read_all(*without.submit({50, 150})).tokens);
  EXPECT_EQ(with.model.num_logits_read, 0);
  SamplingParams params = with_max_tokens(20);
  params.top_k = 5;
  params.seed = 3;
  const auto text = [&](EngineFixture& f) {
    return read_all(**f.engine->submit({"id", {50, 60}, params})).tokens;
  };
  EXPECT_EQ(text(with), text(without));
  EXPECT_GE(with.model.num_logits_read, 1);
  with.model.set_logits_hook([](const std::vector<int32_t>&, std::span<float> logits) {
    logits[7] = std::numeric_limits<float>::quiet_NaN();
  });
  const Outcome out = read_all(*with.submit({20}));
  EXPECT_EQ(out.finish, FinishReason::kError);
  EXPECT_EQ(out.error.message.rfind("numerical", 0), 0u) << out.error.message;
}

TEST(Engine, AReaderThatNeverReadsLosesItsRequest) {
  EngineFixture f({}, {.vocab_size = 300, .max_tokens = 100'000});
  SamplingParams params;
  params.ignore_eos = true;
  auto unread = f.submit({10}, params);  // would go on for 100,000 tokens
  EXPECT_EQ(read_all(*f.submit({199})).finish, FinishReason::kStop);
  const auto end = std::chrono::steady_clock::now() + kSoon;
  while (f.engine->counters().num_running > 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(read_all(*unread).finish, FinishReason::kCancelled);
}

TEST(Engine, ContinuesAKeptSequenceExactly) {
  EngineFixture f;
  const Outcome first = read_all(*f.submit({10, 20, 198}));
  ASSERT_EQ(first.tokens, (std::vector<int32_t>{199, 200, kEos}));
  // Fed so far: the prompt and 199, 200; the end-of-text id was sampled but never fed.
  const Outcome second = read_all(*f.submit({10, 20, 198, 199, 200, kEos, 150, 197}));
  EXPECT_EQ(second.stats.num_cached_tokens, 5);
  EXPECT_EQ(second.tokens, (std::vector<int32_t>{198, 199, 200, kEos}));
  EXPECT_EQ(f.model.num_sequences_made, 1);
  const Outcome third = read_all(*f.submit({10, 21, 198}));
  EXPECT_EQ(third.stats.num_cached_tokens, 0);
  EXPECT_EQ(f.model.num_sequences_made, 2);
}

TEST(Engine, KeptSequencesGiveWayWhenMemoryIsShort) {
  EngineFixture f({.max_num_seqs = 4}, {.max_sequences = 1});
  read_all(*f.submit({198}));
  EXPECT_EQ(f.model.num_sequences_alive, 1) << "kept";
  EXPECT_EQ(read_all(*f.submit({150}, with_max_tokens(2))).finish, FinishReason::kLength);
  f.model.close_gate();
  auto first = f.submit({100}, with_max_tokens(2));
  auto second = f.submit({110}, with_max_tokens(2));  // waits: the model holds one sequence
  f.model.open_gate();
  EXPECT_EQ(read_all(*first).tokens.size(), 2u);
  EXPECT_EQ(read_all(*second).tokens.size(), 2u);
}

TEST(Engine, AContinuedSequenceGetsRoomForItsNewAnswer) {
  // 100 tokens of room. A conversation of few tokens is kept; beside it another answer has ended
  // and is kept as well, with most of the room. The conversation must not die of that half-way.
  EngineFixture f({.num_kept_sequences = 2}, {.max_tokens = 90, .max_reserved = 100});
  EXPECT_EQ(read_all(*f.submit({100, 101}, with_max_tokens(3))).finish, FinishReason::kLength);
  EXPECT_EQ(read_all(*f.submit({10}, with_max_tokens(80))).finish, FinishReason::kLength);
  EXPECT_EQ(f.model.num_sequences_alive, 2) << "both kept";
  const Outcome out = read_all(*f.submit({100, 101, 102, 103, 104}, with_max_tokens(60)));
  EXPECT_EQ(out.finish, FinishReason::kLength) << out.error.message;
  EXPECT_EQ(out.tokens.size(), 60u);
  EXPECT_EQ(out.stats.num_cached_tokens, 4);
}

TEST(Engine, AContinuedSequenceWaitsForRoomAndIsStillContinued) {
  EngineFixture f({.max_num_seqs = 2, .num_kept_sequences = 2},
                  {.max_tokens = 90, .max_reserved = 100});
  read_all(*f.submit({100, 101}, with_max_tokens(3)));
  f.model.close_gate();
  auto other = f.submit({10}, with_max_tokens(80));
  while (f.engine->counters().num_running == 0) std::this_thread::yield();
  auto continued = f.submit({100, 101, 102, 103, 104}, with_max_tokens(60));
  f.model.open_gate();
  EXPECT_EQ(read_all(*other).tokens.size(), 80u);
  const Outcome out = read_all(*continued);
  EXPECT_EQ(out.finish, FinishReason::kLength) << out.error.message;
  EXPECT_EQ(out.tokens.size(), 60u);
  EXPECT_EQ(out.stats.num_cached_tokens, 4);
}

TEST(Engine, StopEndsEverythingWithAnError) {
  EngineFixture f({.max_num_seqs = 1}, {.extend_time = std::chrono::milliseconds(1)});
  auto running = f.submit({10});
  auto waiting = f.submit({10});
  ASSERT_TRUE(running->next_within(kSoon).has_value());
  f.engine->stop();
  for (auto* stream : {&running, &waiting}) {
    const Outcome out = read_all(**stream);
    EXPECT_EQ(out.finish, FinishReason::kError);
    EXPECT_NE(out.error.message.find("shutting down"), std::string::npos);
  }
  EXPECT_FALSE(f.engine->submit({"id", {10}, {}}).has_value());
}

TEST(Engine, TheSameSeedGivesTheSameTextWhateverRunsBesideIt) {
  const auto flat = [](const std::vector<int32_t>&, std::span<float> logits) {
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  };
  const auto generate = [&](bool with_neighbours) {
    EngineFixture f({.max_num_seqs = 4, .seed = with_neighbours ? 77u : 5u});
    f.model.set_logits_hook(flat);
    SamplingParams params = with_max_tokens(30);
    params.seed = 12;
    params.ignore_eos = true;
    std::vector<std::shared_ptr<TokenStream>> neighbours;
    for (int i = 0; with_neighbours && i < 3; ++i) {
      neighbours.push_back(*f.engine->submit({"n", {i + 20}, with_max_tokens(50)}));
    }
    auto stream = *f.engine->submit({"id", {10, 11}, params});
    const auto tokens = read_all(*stream).tokens;
    for (auto& neighbour : neighbours) read_all(*neighbour);
    return tokens;
  };
  EXPECT_EQ(generate(false), generate(true));
}

TEST(Engine, HundredsOfRequestsLeaveNothingBehind) {
  EngineFixture f({.max_num_seqs = 4, .max_queued = 1000, .num_kept_sequences = 0});
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int32_t i = 0; i < 300; ++i) {
    streams.push_back(f.submit({100 + i % 90}));
    if (i % 5 == 0) streams.back()->cancel();
  }
  for (auto& stream : streams) read_all(*stream);
  const EngineCounters counters = f.engine->counters();
  EXPECT_EQ(counters.num_ended, 300);
  EXPECT_EQ(counters.num_running, 0);
  EXPECT_EQ(counters.num_waiting, 0);
  EXPECT_EQ(f.model.num_sequences_alive, 0);
}

}  // namespace
}  // namespace hotset
