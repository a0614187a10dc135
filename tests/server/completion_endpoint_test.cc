// SPDX-License-Identifier: Apache-2.0
// /v1/completions, /tokenize, /detokenize, /v1/models and /version.
#include <gtest/gtest.h>

#include "server/strict_json.h"
#include "support/test_server.h"

namespace hotset {
namespace {

using test::http_get;
using test::http_post;
using test::TestServer;

Json json_of(const std::string& text) {
  auto json = parse_strict_json(text);
  EXPECT_TRUE(json.has_value()) << text;
  return json ? std::move(json).value() : Json();
}

TEST(CompletionEndpoint, TakesTextAndTokenIds) {
  TestServer server;
  for (const char* prompt : {R"("x\n")", R"(["x\n"])", "[120,10]", "[[120,10]]"}) {
    const auto answer =
        http_post(server.port(), "/v1/completions", std::string(R"({"prompt":)") + prompt + "}");
    ASSERT_EQ(answer.status, 200) << prompt << answer.body;
    const Json json = json_of(answer.body);
    EXPECT_EQ(json["object"], "text_completion");
    EXPECT_EQ(json["choices"][0]["text"], "Hello, world");
    EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(json["usage"]["prompt_tokens"], 2);
  }
}

TEST(CompletionEndpoint, StreamsWithLogprobs) {
  TestServer server;
  const auto answer = http_post(server.port(), "/completions",
                                R"({"prompt":"x\n","stream":true,"logprobs":1,"max_tokens":5,
                    "stream_options":{"include_usage":true}})");
  ASSERT_EQ(answer.status, 200);
  auto events = test::sse_data(answer.body);
  ASSERT_EQ(events.back(), "[DONE]");
  events.pop_back();
  std::string text;
  size_t num_logprobs = 0;
  for (const auto& event : events) {
    const Json json = json_of(event);
    for (const Json& choice : json["choices"]) {
      text += choice["text"];
      if (!choice["logprobs"].is_null()) num_logprobs += choice["logprobs"]["tokens"].size();
    }
  }
  EXPECT_EQ(text, "Hello");
  EXPECT_EQ(num_logprobs, 5u);
  EXPECT_EQ(json_of(events.back())["usage"]["completion_tokens"], 5);
}

TEST(CompletionEndpoint, EndsAfterSixteenTokensByDefault) {
  TestServer server({.says = "abcdefghijklmnopqrstuvwxyz"});
  const Json json =
      json_of(http_post(server.port(), "/v1/completions", R"({"prompt":"x\n"})").body);
  EXPECT_EQ(json["choices"][0]["text"], "abcdefghijklmnop");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
}

TEST(CompletionEndpoint, IgnoreEosAndMinTokensAsBenchmarksSendThem) {
  TestServer server({.says = "ab"});
  const Json json = json_of(
      http_post(server.port(), "/v1/completions",
                R"({"prompt":"x\n","stop":null,"ignore_eos":true,"max_tokens":8,"min_tokens":8})")
          .body);
  EXPECT_EQ(json["usage"]["completion_tokens"], 8);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
}

TEST(CompletionEndpoint, SaysWhenThePromptIsTooLong) {
  TestServer server({.model = {.vocab_size = 300, .max_tokens = 64}});
  const auto answer =
      http_post(server.port(), "/v1/completions", R"({"prompt":")" + std::string(64, 'x') + "\"}");
  EXPECT_EQ(answer.status, 400);
  const Json error = json_of(answer.body)["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_NE(error["message"].get<std::string>().find("maximum context length is 64 tokens"),
            std::string::npos);
}

TEST(TokenizeEndpoint, GoesThereAndBack) {
  TestServer server;
  for (const char* field : {"content", "prompt"}) {
    const Json json = json_of(
        http_post(server.port(), "/tokenize", std::string("{\"") + field + R"(":"Hi<|im_end|>"})")
            .body);
    EXPECT_EQ(json["tokens"], Json::array({'H', 'i', test::kToyEos}));
    EXPECT_EQ(json["count"], 3);
  }
  const Json json = json_of(http_post(server.port(), "/detokenize", R"({"tokens":[72,105]})").body);
  EXPECT_EQ(json["content"], "Hi");
  EXPECT_EQ(http_post(server.port(), "/detokenize", R"({"tokens":[999]})").status, 400);
  EXPECT_EQ(http_post(server.port(), "/detokenize", R"({"tokens":[-1]})").status, 400);
}

TEST(ModelsEndpoint, ListsTheNames) {
  TestServer server;
  const Json list = json_of(http_get(server.port(), "/v1/models").body);
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][0]["id"], "toy");
  EXPECT_EQ(list["data"][0]["max_model_len"], 2048);
  EXPECT_EQ(list["data"][0]["meta"]["n_ctx"], 2048);
  EXPECT_EQ(json_of(http_get(server.port(), "/v1/models/toy-alias").body)["id"], "toy-alias");
  EXPECT_EQ(http_get(server.port(), "/v1/models/other").status, 404);
  EXPECT_EQ(json_of(http_get(server.port(), "/version").body)["version"], "test");
}

TEST(ModelsEndpoint, UnknownModelsAreNotFound) {
  TestServer server;
  const auto answer =
      http_post(server.port(), "/v1/chat/completions", test::chat_body(R"("model":"gpt-9")"));
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(json_of(answer.body)["error"]["code"], "model_not_found");
  EXPECT_EQ(
      http_post(server.port(), "/v1/chat/completions", test::chat_body(R"("model":"toy-alias")"))
          .status,
      200);
}

}  // namespace
}  // namespace hotset
