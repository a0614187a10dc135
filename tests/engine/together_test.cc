// SPDX-License-Identifier: Apache-2.0
// Answers that are computed together: every pass over the weights moves all of them on, prompts get
// their turns between, and nobody notices the others, whatever happens to them.
#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
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

using Streams = std::vector<std::shared_ptr<TokenStream>>;

// One sequence after the other, in the order of `prompts`, all of them before the first pass.
Streams submit_all(EngineFixture& f, const std::vector<std::vector<int32_t>>& prompts,
                   const SamplingParams& params = {}) {
  f.model.close_gate();
  Streams streams;
  for (const auto& prompt : prompts) streams.push_back(f.submit(prompt, params));
  f.model.open_gate();
  return streams;
}

std::vector<int32_t> counted(int32_t after, int32_t count) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), after + 1);
  return ids;
}

TEST(Together, AnswersShareEveryPass) {
  EngineFixture f({.max_num_seqs = 4});
  const Streams streams = submit_all(f, {{100}, {110}, {120}, {130}}, with_max_tokens(40));
  for (size_t s = 0; s < 4; ++s) {
    EXPECT_EQ(read_all(*streams[s]).tokens, counted(static_cast<int32_t>(100 + 10 * s), 40));
  }
  const std::vector<size_t> sizes = f.model.batch_sizes();
  EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), size_t{0}), 4u * 39u)
      << "a token each; the first ones come with the prompts";
  EXPECT_LE(sizes.size(), 39u + 3u) << "alone at most until the last of four prompts was through";
  EXPECT_EQ(*std::max_element(sizes.begin(), sizes.end()), 4u);
  EXPECT_EQ(f.model.num_extends, 4 + static_cast<int64_t>(sizes.size()));
}

TEST(Together, MoreThanABatchHoldsGoOnInGroups) {
  EngineFixture f({.max_num_seqs = 8}, {.max_decode_batch = 3});
  std::map<int32_t, int> said;
  int most_ahead = 0;
  f.model.set_logits_hook([&](const std::vector<int32_t>& ids, std::span<float>) {
    ++said[ids[0]];
    if (said.size() < 8) return;
    const auto by_count = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto [least, most] = std::minmax_element(said.begin(), said.end(), by_count);
    if (least->second >= 10) most_ahead = std::max(most_ahead, most->second - least->second);
  });
  std::vector<std::vector<int32_t>> prompts;
  for (int32_t s = 0; s < 8; ++s) prompts.push_back({100 + s});
  const Streams streams = submit_all(f, prompts, with_max_tokens(50));
  for (int32_t s = 0; s < 8; ++s) {
    EXPECT_EQ(read_all(*streams[static_cast<size_t>(s)]).tokens, counted(100 + s, 50));
  }
  const std::vector<size_t> sizes = f.model.batch_sizes();
  EXPECT_EQ(*std::max_element(sizes.begin(), sizes.end()), 3u);
  EXPECT_LE(sizes.size(), 8u + (8 * 49 + 2) / 3) << "no place stays empty while eight answer";
  EXPECT_LE(most_ahead, 10) << "nobody is overtaken for good";
}

// 24 pieces of a prompt beside an answer of 40 tokens: piece, token, piece, token.
TEST(Together, PromptsAndAnswersAlternate) {
  EngineFixture f({.max_num_seqs = 2}, {.prefill_chunk = 8});
  std::string order;
  f.model.set_logits_hook([&](const std::vector<int32_t>& ids, std::span<float>) {
    order += ids[0] == 100 ? 'a' : ids.size() <= 192 ? 'P' : 'p';
  });
  const Streams streams =
      submit_all(f, {{100}, std::vector<int32_t>(192, 150)}, with_max_tokens(40));
  EXPECT_EQ(read_all(*streams[0]).tokens, counted(100, 40));
  EXPECT_EQ(read_all(*streams[1]).tokens, counted(150, 40));
  std::string expected;
  for (int i = 0; i < 24; ++i) expected += "Pa";
  const size_t both = order.find("PaPa");
  ASSERT_NE(both, std::string::npos) << order;
  EXPECT_LE(both, 2u) << order;
  EXPECT_GE(std::mismatch(expected.begin(), expected.end(), order.begin() + both).first -
                expected.begin(),
            44)
      << order;
}

TEST(Together, WhatIsWrongWithOneEndsThatOne) {
  EngineFixture f({.max_num_seqs = 3});
  f.model.set_logits_hook([](const std::vector<int32_t>& ids, std::span<float> logits) {
    if (ids[0] == 66 && ids.size() > 5) logits[7] = std::numeric_limits<float>::quiet_NaN();
  });
  const Streams streams = submit_all(f, {{100}, {66, 120}, {140}}, with_max_tokens(30));
  const Outcome wrong = read_all(*streams[1]);
  EXPECT_EQ(wrong.finish, FinishReason::kError);
  EXPECT_EQ(wrong.error.message.rfind("numerical", 0), 0u) << wrong.error.message;
  EXPECT_EQ(wrong.tokens, counted(120, 4));
  EXPECT_EQ(read_all(*streams[0]).tokens, counted(100, 30));
  EXPECT_EQ(read_all(*streams[2]).tokens, counted(140, 30));
}

// Nobody knows how far the states of the others got.
TEST(Together, AnErrorOfAPassEndsThoseThatSharedIt) {
  EngineFixture f({.max_num_seqs = 4}, {.prefill_chunk = 8, .max_decode_batch = 2});
  f.model.set_fault([](const std::vector<int32_t>& ids) -> Status {
    if (ids[0] == 66 && ids.size() > 5) return fail("injected", ErrorKind::kInternal);
    return {};
  });
  // The last prompt is still read when the pass fails.
  Streams streams =
      submit_all(f, {std::vector<int32_t>(80, 150), {66, 120}, {100}}, with_max_tokens(30));
  int num_failed = 0;
  for (size_t s : {1, 2}) {
    const Outcome out = read_all(*streams[s]);
    num_failed += out.finish == FinishReason::kError ? 1 : 0;
    EXPECT_TRUE(out.finish != FinishReason::kError || out.error.message == "injected");
  }
  EXPECT_EQ(num_failed, 2);
  EXPECT_EQ(read_all(*streams[0]).tokens, counted(150, 30)) << "was not in it";
  EXPECT_EQ(read_all(*f.submit({199})).tokens, (std::vector<int32_t>{200, kEos}));
  EXPECT_EQ(f.engine->counters().num_running, 0);
  EXPECT_FALSE(f.engine->device_lost());
}

TEST(Together, ALostDeviceEndsEverything) {
  EngineFixture f({.max_num_seqs = 3}, {.max_decode_batch = 2});
  f.model.set_fault([](const std::vector<int32_t>& ids) -> Status {
    if (ids[0] == 66 && ids.size() > 5) return fail("the GPU is gone", ErrorKind::kDeviceLost);
    return {};
  });
  const Streams streams = submit_all(f, {{100}, {66, 120}, {140}, {160}}, with_max_tokens(30));
  for (const auto& stream : streams) {
    const Outcome out = read_all(*stream);
    EXPECT_EQ(out.finish, FinishReason::kError);
    EXPECT_EQ(out.error.message, "the GPU is gone");
  }
  EXPECT_TRUE(f.engine->device_lost());
  EXPECT_FALSE(f.engine->submit({"id", {100}, {}}).has_value());
}

TEST(Together, WhoLeavesInTheMiddleTakesNobodyAlong) {
  EngineFixture f({.max_num_seqs = 4, .num_kept_sequences = 0},
                  {.extend_time = std::chrono::microseconds(300)});
  const Streams streams = submit_all(f, {{10}, {20}, {30}, {40}}, with_max_tokens(100));
  while (streams[1]->next_within(kSoon)->token != 45) continue;
  streams[1]->cancel();
  streams[3]->cancel();
  EXPECT_EQ(read_all(*streams[1]).finish, FinishReason::kCancelled);
  EXPECT_EQ(read_all(*streams[3]).finish, FinishReason::kCancelled);
  EXPECT_EQ(read_all(*streams[0]).tokens, counted(10, 100));
  EXPECT_EQ(read_all(*streams[2]).tokens, counted(30, 100));
  EXPECT_EQ(f.model.num_sequences_alive, 0);
  const std::vector<size_t> sizes = f.model.batch_sizes();
  EXPECT_GT(std::count(sizes.begin(), sizes.end(), 4u), 10);
  EXPECT_GT(std::count(sizes.begin(), sizes.end(), 2u), 10);
}

// Rows of which the largest logits settle the token, rows for which all have to be read, and one
// whose log-probabilities are asked for.
TEST(Together, LargestLogitsAndAllOfThemGiveOneText) {
  const auto texts = [](bool has_heads) {
    EngineFixture f({.max_num_seqs = 3}, {.has_heads = has_heads});
    f.model.close_gate();
    SamplingParams drawn = with_max_tokens(20), asked = with_max_tokens(20);
    drawn.top_k = 5;
    drawn.seed = 3;
    asked.temperature = 0;
    asked.num_logprobs = 2;
    Streams streams = {f.submit({100}, with_max_tokens(20)),
                       *f.engine->submit({"id", {110}, drawn}),
                       *f.engine->submit({"id", {120}, asked})};
    f.model.open_gate();
    std::vector<std::vector<int32_t>> out;
    for (const auto& stream : streams) out.push_back(read_all(*stream).tokens);
    EXPECT_EQ(out[0], counted(100, 20));
    EXPECT_EQ(out[2], counted(120, 20));
    EXPECT_GE(f.model.num_logits_read, has_heads ? 15 : 0) << "of the third";
    EXPECT_LE(f.model.num_logits_read, has_heads ? 40 : 0) << "of the first";
    return out;
  };
  EXPECT_EQ(texts(true), texts(false));
}

// What was reserved when they were let in is what they use, to the token.
TEST(Together, NoPassNeedsMoreRoomThanWasReserved) {
  EngineFixture f({.max_num_seqs = 4, .num_kept_sequences = 0}, {.max_reserved = 4 * 31});
  const Streams streams =
      submit_all(f, {{100}, {110}, {120}, {130}, {140}, {150}}, with_max_tokens(30));
  for (const auto& stream : streams) {
    const Outcome out = read_all(*stream);
    EXPECT_EQ(out.finish, FinishReason::kLength) << out.error.message;
    EXPECT_EQ(out.tokens.size(), 30u);
    EXPECT_EQ(out.stats.num_output_tokens, 30);
  }
  EXPECT_EQ(f.engine->counters().num_output_tokens, 6 * 30);
  EXPECT_EQ(f.model.num_reserved, 0);
}

// The room of one longest answer; four that may become as long and do not are computed at once.
TEST(Together, AnswersOfNoStatedLengthShareTheRoom) {
  EngineFixture f({.max_num_seqs = 4, .num_kept_sequences = 0, .first_room = 16},
                  {.max_tokens = 300, .max_reserved = 301});
  const Streams streams = submit_all(f, {{140}, {141}, {142}, {143}});
  for (int32_t s = 0; s < 4; ++s) {
    const Outcome out = read_all(*streams[static_cast<size_t>(s)]);
    EXPECT_EQ(out.finish, FinishReason::kStop) << out.error.message;
    EXPECT_EQ(out.tokens.size(), static_cast<size_t>(61 - s));
  }
  const std::vector<size_t> sizes = f.model.batch_sizes();
  EXPECT_GE(std::count(sizes.begin(), sizes.end(), 4u), 50);
}

// Three answers that would fill the context each, with room for one and a half: who waits goes on
// when another one has ended, whose state gives way, and nobody gets an error.
TEST(Together, AnswersWaitForRoomAndTheLatestGivesWay) {
  EngineFixture f({.max_num_seqs = 3, .num_kept_sequences = 2, .first_room = 16},
                  {.max_tokens = 200, .max_reserved = 300});
  SamplingParams endless;
  endless.ignore_eos = true;
  const Streams streams = submit_all(f, {{10}, {11}, {12}}, endless);
  auto late = f.submit({150}, with_max_tokens(5));
  std::vector<size_t> lengths;
  for (int32_t s = 0; s < 3; ++s) {
    const Outcome out = read_all(*streams[static_cast<size_t>(s)]);
    EXPECT_EQ(out.finish, FinishReason::kLength) << out.error.message;
    for (size_t i = 0; i < std::min<size_t>(out.tokens.size(), 180); ++i) {
      ASSERT_EQ(out.tokens[i], 11 + s + static_cast<int32_t>(i)) << "sequence " << s;
    }
    lengths.push_back(out.tokens.size());
  }
  EXPECT_EQ(lengths[0], 199u) << "the first is never the latest";
  EXPECT_GE(lengths[1], 64u);
  EXPECT_GE(lengths[2], 64u);
  EXPECT_EQ(read_all(*late).tokens, counted(150, 5));
  EXPECT_EQ(f.engine->counters().num_running, 0);
}

}  // namespace
}  // namespace hotset
