// SPDX-License-Identifier: Apache-2.0
// /v1/chat/completions as clients see it: shapes, streams, stops, logprobs, reasoning, tools.
#include <gtest/gtest.h>

#include "server/strict_json.h"
#include "support/test_server.h"

namespace hotset {
namespace {

using test::chat_body;
using test::http_post;
using test::HttpAnswer;
using test::TestServer;
using test::TestServerOptions;

constexpr const char* kChat = "/v1/chat/completions";

Json json_of(const std::string& text) {
  auto json = parse_strict_json(text);
  EXPECT_TRUE(json.has_value()) << json.error().message << " in " << text;
  return json ? std::move(json).value() : Json();
}

std::vector<Json> chunks_of(const HttpAnswer& answer) {
  std::vector<Json> out;
  auto events = test::sse_data(answer.body);
  EXPECT_FALSE(events.empty());
  EXPECT_EQ(events.back(), "[DONE]");
  for (size_t i = 0; i + 1 < events.size(); ++i) out.push_back(json_of(events[i]));
  return out;
}

TEST(ChatEndpoint, AnswersInOnePiece) {
  TestServer server;
  const HttpAnswer answer = http_post(server.port(), kChat, chat_body(R"("model":"toy")"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  const Json json = json_of(answer.body);
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["model"], "toy");
  EXPECT_EQ(json["id"].get<std::string>().rfind("chatcmpl-", 0), 0u);
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "Hello, world");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["completion_tokens"], 13);
  EXPECT_EQ(json["usage"]["total_tokens"].get<int>(),
            json["usage"]["prompt_tokens"].get<int>() + 13);
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

TEST(ChatEndpoint, Streams) {
  TestServer server;
  const HttpAnswer answer = http_post(
      server.port(), kChat,
      chat_body(
          R"("stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true})"));
  ASSERT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.at("content-type").rfind("text/event-stream", 0), 0u);
  const auto chunks = chunks_of(answer);
  ASSERT_GE(chunks.size(), 3u);
  EXPECT_EQ(chunks[0]["choices"][0]["delta"], (Json{{"role", "assistant"}, {"content", ""}}));
  std::string text;
  for (const Json& chunk : chunks) {
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_EQ(chunk["id"], chunks[0]["id"]);
    EXPECT_EQ(chunk["created"], chunks[0]["created"]);
    for (const Json& choice : chunk["choices"]) text += choice["delta"].value("content", "");
  }
  EXPECT_EQ(text, "Hello, world");
  const Json& last = chunks[chunks.size() - 2];
  EXPECT_EQ(last["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(last["choices"][0]["delta"].empty());
  const Json& usage = chunks.back();
  EXPECT_TRUE(usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"], 13);
}

TEST(ChatEndpoint, TreatsNullAsAbsentAndIgnoresUnknownFields) {
  TestServer server;
  const HttpAnswer answer = http_post(
      server.port(), kChat,
      chat_body(R"("stop":null,"temperature":null,"tools":null,"logit_bias":null,"seed":null,
                   "max_tokens":null,"response_format":null,"n":1,"user":"me","store":false,
                   "metadata":{"a":[1]},"service_tier":"auto","some_new_field":{"x":1}})")
          .c_str());
  EXPECT_EQ(answer.status, 400) << "one brace too many is not JSON";
  EXPECT_EQ(http_post(server.port(), kChat,
                      chat_body(R"("stop":null,"temperature":null,"tools":null,"logit_bias":null,
                   "seed":null,"max_tokens":null,"response_format":null,"n":1,"user":"me",
                   "store":false,"metadata":{"a":[1]},"some_new_field":{"x":1})"))
                .status,
            200);
}

TEST(ChatEndpoint, TakesAllShapesOfMessages) {
  TestServer server;
  const std::string body = R"({"messages":[
    {"role":"developer","content":"Be brief."},
    {"role":"user","content":[{"type":"text","text":"Hi "},
                              {"type":"text","text":"there","cache_control":{"type":"ephemeral"}}]},
    {"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
        "function":{"name":"f","arguments":"{\"a\":1}"}}]},
    {"role":"tool","tool_call_id":"c1","content":"42"},
    {"role":"assistant","content":"ok","reasoning":"hm"},
    {"role":"user","content":"Bye","name":"Ann"}]})";
  EXPECT_EQ(http_post(server.port(), kChat, body).status, 200);
}

TEST(ChatEndpoint, EndsAtMaxTokensAndAtStopStrings) {
  TestServer server;
  const Json cut = json_of(http_post(server.port(), kChat, chat_body(R"("max_tokens":5)")).body);
  EXPECT_EQ(cut["choices"][0]["message"]["content"], "Hello");
  EXPECT_EQ(cut["choices"][0]["finish_reason"], "length");
  const Json newer =
      json_of(http_post(server.port(), kChat, chat_body(R"("max_completion_tokens":2)")).body);
  EXPECT_EQ(newer["choices"][0]["message"]["content"], "He");
  for (const char* stop : {R"("stop":", w")", R"("stop":["zzz",", w"])"}) {
    const Json json = json_of(http_post(server.port(), kChat, chat_body(stop)).body);
    EXPECT_EQ(json["choices"][0]["message"]["content"], "Hello");
    EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  }
  const Json kept =
      json_of(http_post(server.port(), kChat,
                        chat_body(R"("stop":", w","include_stop_str_in_output":true)"))
                  .body);
  EXPECT_EQ(kept["choices"][0]["message"]["content"], "Hello, w");
}

TEST(ChatEndpoint, ReportsLogprobsWithBytes) {
  TestServer server({.says = "é"});
  const Json json = json_of(
      http_post(server.port(), kChat, chat_body(R"("logprobs":true,"top_logprobs":2)")).body);
  const Json& content = json["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3u) << "two bytes and the end of text";
  EXPECT_EQ(content[0]["bytes"], Json::array({0xc3}));
  EXPECT_EQ(content[0]["token"], "\xef\xbf\xbd");
  EXPECT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[0]["top_logprobs"][0]["bytes"], content[0]["bytes"]);
  EXPECT_LE(content[0]["logprob"].get<double>(), 0);

  const HttpAnswer streamed =
      http_post(server.port(), kChat, chat_body(R"("logprobs":true,"stream":true)"));
  size_t num_entries = 0;
  for (const Json& chunk : chunks_of(streamed)) {
    const Json& logprobs = chunk["choices"][0]["logprobs"];
    if (!logprobs.is_null()) num_entries += logprobs["content"].size();
  }
  EXPECT_EQ(num_entries, 3u);
}

TEST(ChatEndpoint, SeparatesReasoning) {
  TestServer server({.says = "let me think</think>done"});
  server.dialect.starts_in_reasoning = true;
  const Json json = json_of(http_post(server.port(), kChat, chat_body()).body);
  const Json& message = json["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "let me think");
  EXPECT_EQ(message["reasoning"], "let me think");
  EXPECT_EQ(message["content"], "done");
  EXPECT_GE(json["usage"]["completion_tokens_details"]["reasoning_tokens"].get<int>(), 12);
  std::string reasoning, content;
  for (const Json& chunk :
       chunks_of(http_post(server.port(), kChat, chat_body(R"("stream":true)")))) {
    const Json& delta = chunk["choices"][0]["delta"];
    reasoning += delta.value("reasoning_content", "");
    content += delta.value("content", "");
  }
  EXPECT_EQ(reasoning, "let me think");
  EXPECT_EQ(content, "done");
  const Json hidden =
      json_of(http_post(server.port(), kChat, chat_body(R"("include_reasoning":false)")).body);
  EXPECT_FALSE(hidden["choices"][0]["message"].contains("reasoning"));
}

TEST(ChatEndpoint, ReturnsToolCalls) {
  TestServer server({.says = "CALL f {\"a\": 1};"});
  const std::string tools =
      R"("tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}])";
  const Json json = json_of(http_post(server.port(), kChat, chat_body(tools)).body);
  const Json& choice = json["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["message"]["content"].is_null());
  const Json& call = choice["message"]["tool_calls"][0];
  EXPECT_EQ(call["type"], "function");
  EXPECT_FALSE(call["id"].get<std::string>().empty());
  EXPECT_EQ(call["function"]["name"], "f");
  EXPECT_EQ(call["function"]["arguments"], "{\"a\": 1}");

  const auto chunks =
      chunks_of(http_post(server.port(), kChat, chat_body(tools + R"(,"stream":true)")));
  std::string arguments, name;
  for (const Json& chunk : chunks) {
    const Json& delta = chunk["choices"][0]["delta"];
    if (!delta.contains("tool_calls")) continue;
    EXPECT_EQ(delta["tool_calls"][0]["index"], 0);
    arguments += delta["tool_calls"][0]["function"]["arguments"];
    if (delta["tool_calls"][0]["function"].contains("name")) {
      name = delta["tool_calls"][0]["function"]["name"];
    }
  }
  EXPECT_EQ(name, "f");
  EXPECT_EQ(arguments, "{\"a\": 1}");
  EXPECT_EQ(chunks.back()["choices"][0]["finish_reason"], "tool_calls");

  const Json none =
      json_of(http_post(server.port(), kChat, chat_body(tools + R"(,"tool_choice":"none")")).body);
  EXPECT_EQ(none["choices"][0]["message"]["content"], "CALL f {\"a\": 1};");
}

TEST(ChatEndpoint, NeverSendsHalfACharacter) {
  TestServer server({.says = "a€😀é漢"});
  std::string text;
  for (const Json& chunk :
       chunks_of(http_post(server.port(), kChat, chat_body(R"("stream":true)")))) {
    text += chunk["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, "a€😀é漢");
}

TEST(ChatEndpoint, ErrorsOfTheModelAreEvents) {
  TestServer server;
  server.model->set_fault([](const std::vector<int32_t>& ids) -> Status {
    const bool has_begun = ids.back() == 'l';
    return has_begun ? Status(fail("injected", ErrorKind::kInternal)) : Status();
  });
  const HttpAnswer whole = http_post(server.port(), kChat, chat_body());
  EXPECT_EQ(whole.status, 500);
  EXPECT_EQ(json_of(whole.body)["error"]["message"], "injected");
  const HttpAnswer streamed = http_post(server.port(), kChat, chat_body(R"("stream":true)"));
  EXPECT_EQ(streamed.status, 200);
  EXPECT_TRUE(streamed.body_is_complete);
  const auto events = test::sse_data(streamed.body);
  EXPECT_EQ(json_of(events.back())["error"]["message"], "injected") << "and no [DONE]";
  server.model->set_fault({});
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 200);
}

TEST(ChatEndpoint, NumericalTroubleHasItsOwnCode) {
  TestServer server;
  server.model->set_logits_hook([](const std::vector<int32_t>&, std::span<float> logits) {
    logits[3] = std::numeric_limits<float>::quiet_NaN();
  });
  const HttpAnswer answer = http_post(server.port(), kChat, chat_body());
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(json_of(answer.body)["error"]["code"], "numerical");
}

TEST(ChatEndpoint, ContinuesAConversationFromTheKeptState) {
  TestServer server;
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 200);
  const Json json = json_of(http_post(server.port(), kChat,
                                      R"({"messages":[{"role":"user","content":"Hi"},
                    {"role":"assistant","content":"Hello, world"},
                    {"role":"user","content":"More"}]})")
                                .body);
  EXPECT_GT(json["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>(), 20);
  EXPECT_EQ(json["choices"][0]["message"]["content"], "Hello, world");
}

}  // namespace
}  // namespace hotset
