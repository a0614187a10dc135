// SPDX-License-Identifier: Apache-2.0
#include "server/text_stream.h"

#include <gtest/gtest.h>

#include "support/toy_tokenizer.h"

namespace hotset {
namespace {

struct Fixture {
  Tokenizer tokenizer = test::make_toy_tokenizer();
  std::shared_ptr<TokenStream> tokens = std::make_shared<TokenStream>();

  void push(int32_t token, std::optional<FinishReason> finish = std::nullopt) {
    TokenEvent event;
    event.token = token;
    event.finish = finish;
    event.finish ? tokens->push_last(event) : (void)tokens->push(event);
  }
  void push_text(std::string_view text) {
    for (const int32_t id : test::toy_ids(tokenizer, text)) push(id);
  }
  void push_end(FinishReason finish) {
    TokenEvent event;
    event.finish = finish;
    tokens->push_last(event);
  }
};

struct Read {
  std::string text;
  size_t num_tokens = 0;
  std::optional<FinishReason> finish;
  RequestStats stats;
};

Read read_available(TextStream& stream) {
  Read out;
  while (auto piece = stream.try_next()) {
    out.text += piece->text;
    out.num_tokens += piece->token ? 1 : 0;
    out.finish = piece->finish;
    out.stats = piece->stats;
    if (piece->finish) break;
  }
  return out;
}

TEST(TextStream, JoinsCharactersAcrossTokens) {
  Fixture f;
  TextStream stream(f.tokens, f.tokenizer, {});
  f.push_text("a€😀");
  f.push(test::kToyEos, FinishReason::kStop);
  const Read out = read_available(stream);
  EXPECT_EQ(out.text, "a€😀");
  EXPECT_EQ(out.finish, FinishReason::kStop);
  EXPECT_EQ(out.stats.num_output_tokens, 9) << "the end-of-text token counts";
}

TEST(TextStream, ACutCharacterShowsAtTheEndOnly) {
  Fixture f;
  TextStream stream(f.tokens, f.tokenizer, {});
  f.push('a');
  f.push(0xe2);
  f.push(0x82, FinishReason::kLength);
  EXPECT_EQ(read_available(stream).text, "a\xef\xbf\xbd");
}

TEST(TextStream, AStopStringEndsTheTextAndCancels) {
  Fixture f;
  SamplingParams params;
  params.stop = {"STOP"};
  TextStream stream(f.tokens, f.tokenizer, params);
  f.push_text("one STOP two");
  Read out = read_available(stream);
  EXPECT_EQ(out.text, "one ");
  EXPECT_TRUE(f.tokens->is_cancelled());
  EXPECT_FALSE(out.finish.has_value()) << "the engine's last event brings the numbers";
  f.push_end(FinishReason::kCancelled);
  out = read_available(stream);
  EXPECT_EQ(out.finish, FinishReason::kStop);
  EXPECT_EQ(out.stats.num_output_tokens, 8) << "tokens after the match do not count";
}

TEST(TextStream, KeepsTheStopStringWhenAsked) {
  Fixture f;
  SamplingParams params;
  params.stop = {"STOP"};
  params.include_stop_str_in_output = true;
  TextStream stream(f.tokens, f.tokenizer, params);
  f.push_text("one STOP");
  EXPECT_EQ(read_available(stream).text, "one STOP");
}

TEST(TextStream, TheLastTokenMayCompleteAStop) {
  Fixture f;
  SamplingParams params;
  params.stop = {"bc"};
  TextStream stream(f.tokens, f.tokenizer, params);
  f.push('a');
  f.push('b');
  f.push('c', FinishReason::kLength);
  const Read out = read_available(stream);
  EXPECT_EQ(out.text, "a");
  EXPECT_EQ(out.finish, FinishReason::kStop);
}

TEST(TextStream, DestroyingCancels) {
  Fixture f;
  { TextStream stream(f.tokens, f.tokenizer, {}); }
  EXPECT_TRUE(f.tokens->is_cancelled());
}

}  // namespace
}  // namespace hotset
