// SPDX-License-Identifier: Apache-2.0
// n > 1 and echo: indices, seeds, usage, streams, and what happens when one choice fails.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <thread>

#include "server/strict_json.h"
#include "support/test_server.h"

namespace hotset {
namespace {

using test::chat_body;
using test::http_post;
using test::TestServer;
using test::TestServerOptions;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kCompletions = "/v1/completions";

Json json_of(const std::string& text) {
  auto json = parse_strict_json(text);
  EXPECT_TRUE(json.has_value()) << text;
  return json ? std::move(json).value() : Json();
}

// Every token equally probable: what is said is up to the seed.
void make_random(TestServer& server) {
  server.model->set_logits_hook([](const std::vector<int32_t>&, std::span<float> logits) {
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = i >= 'a' && i <= 'z' ? 1.0f : -100.0f;
  });
}

struct StreamedChoice {
  std::string text, finish_reason;
  int num_ends = 0;
};

std::map<int, StreamedChoice> read_stream(const std::string& body, Json* usage) {
  std::map<int, StreamedChoice> out;
  for (const std::string& event : test::sse_data(body)) {
    if (event == "[DONE]") continue;
    const Json json = json_of(event);
    if (json.contains("usage")) *usage = json["usage"];
    for (const Json& choice : json["choices"]) {
      StreamedChoice& target = out[choice["index"].get<int>()];
      target.text += choice.contains("delta") ? choice["delta"].value("content", "")
                                              : choice["text"].get<std::string>();
      if (choice["finish_reason"].is_null()) continue;
      target.finish_reason = choice["finish_reason"];
      ++target.num_ends;
    }
  }
  return out;
}

TEST(Choices, AreIndependentAndTheFirstIsTheOneOfNOne) {
  TestServer server;
  make_random(server);
  const auto ask = [&](int n, int seed) {
    const auto answer = http_post(
        server.port(), kCompletions,
        fmt::format(R"({{"prompt":"x\n","n":{},"seed":{},"temperature":1,"max_tokens":8}})", n,
                    seed));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return json_of(answer.body);
  };
  const Json eight = ask(8, 100);
  ASSERT_EQ(eight["choices"].size(), 8u);
  for (int i = 0; i < 8; ++i) {
    const Json& choice = eight["choices"][static_cast<size_t>(i)];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(choice["finish_reason"], "length");
    EXPECT_EQ(choice["text"].get<std::string>().size(), 8u);
    EXPECT_EQ(choice["text"], ask(1, 100 + i)["choices"][0]["text"]) << i;
    for (int other = 0; other < i; ++other) {
      EXPECT_NE(choice["text"], eight["choices"][static_cast<size_t>(other)]["text"]);
    }
  }
  EXPECT_EQ(eight["usage"]["prompt_tokens"], 2) << "the prompt counts once";
  EXPECT_EQ(eight["usage"]["completion_tokens"], 64);
  EXPECT_EQ(eight["usage"]["total_tokens"], 66);
}

TEST(Choices, WithoutASeedDifferToo) {
  TestServer server;
  make_random(server);
  const Json json = json_of(
      http_post(server.port(), kChat, chat_body(R"("n":2,"temperature":1,"max_tokens":12)")).body);
  ASSERT_EQ(json["choices"].size(), 2u);
  EXPECT_NE(json["choices"][0]["message"]["content"], json["choices"][1]["message"]["content"]);
}

TEST(Choices, StreamSaysWhatTheWholeAnswerSays) {
  TestServer server;
  make_random(server);
  for (const bool is_chat : {true, false}) {
    const char* path = is_chat ? kChat : kCompletions;
    const std::string fields = R"("n":3,"seed":5,"temperature":1,"max_tokens":9)";
    const auto body = [&](const std::string& more) {
      return is_chat ? chat_body(fields + more) : R"({"prompt":"x\n",)" + fields + more + "}";
    };
    const Json whole = json_of(http_post(server.port(), path, body("")).body);
    const auto answer = http_post(
        server.port(), path, body(R"(,"stream":true,"stream_options":{"include_usage":true})"));
    Json usage;
    const auto streamed = read_stream(answer.body, &usage);
    ASSERT_EQ(streamed.size(), 3u) << answer.body;
    for (const auto& [index, choice] : streamed) {
      const Json& expected = whole["choices"][static_cast<size_t>(index)];
      EXPECT_EQ(choice.text, is_chat ? expected["message"]["content"] : expected["text"]);
      EXPECT_EQ(choice.finish_reason, "length");
      EXPECT_EQ(choice.num_ends, 1);
    }
    EXPECT_EQ(usage, whole["usage"]);
    EXPECT_EQ(usage["completion_tokens"], 27);
    EXPECT_EQ(test::sse_data(answer.body).back(), "[DONE]");
  }
}

TEST(Choices, OneThatFailsEndsTheAnswerAndFreesTheOthers) {
  TestServer server;
  make_random(server);
  std::atomic<int> num_steps{0};
  server.model->set_fault([&](const std::vector<int32_t>& ids) -> Status {
    if (ids.size() > 8 && ++num_steps == 3) return fail("boom", ErrorKind::kInternal);
    return {};
  });
  const std::string fields = R"("n":4,"temperature":1,"max_tokens":1000)";
  const auto answer = http_post(server.port(), kChat, chat_body(fields));
  EXPECT_EQ(answer.status, 500) << answer.body;
  EXPECT_EQ(json_of(answer.body)["error"]["message"], "boom");
  EXPECT_TRUE(server.engine_is_idle_within(5));
  num_steps = 0;
  const auto stream = http_post(server.port(), kChat, chat_body(fields + R"(,"stream":true)"));
  EXPECT_TRUE(json_of(test::sse_data(stream.body).back()).contains("error"));
  EXPECT_TRUE(server.engine_is_idle_within(5));
}

TEST(Choices, ThatFindNoRoomInTheQueueAreRefusedTogether) {
  TestServer server({.engine = {.max_num_seqs = 1, .max_queued = 2}});
  server.model->close_gate();
  const auto refused = http_post(server.port(), kChat, chat_body(R"("n":8)"));
  EXPECT_EQ(refused.status, 429) << refused.body;
  server.model->open_gate();
  EXPECT_TRUE(server.engine_is_idle_within(5));
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 200);
}

TEST(Choices, AClientThatLeavesIsLoggedOnce) {
  std::mutex mutex;
  std::vector<std::string> lines;
  ApiOptions api;
  api.log = [&](const std::string& line) {
    const std::lock_guard lock(mutex);
    lines.push_back(line);
  };
  TestServer server({.model = {.vocab_size = 300,
                               .max_tokens = 2048,
                               .extend_time = std::chrono::microseconds(500)},
                     .api = api});
  {
    test::HttpClient client(server.port());
    client.post(kChat, chat_body(R"("n":2,"stream":true,"ignore_eos":true)"));
    ASSERT_TRUE(client.read_until("data: "));
  }
  ASSERT_TRUE(server.engine_is_idle_within(5));
  for (int i = 0; i < 500 && server.http->num_connections() > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const std::lock_guard lock(mutex);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_NE(lines[0].find("cancelled"), std::string::npos) << lines[0];
}

TEST(Echo, PutsThePromptBeforeEveryChoice) {
  TestServer server;
  for (const char* prompt : {R"("x\n")", "[120,10]"}) {
    const std::string fields = std::string(R"({"prompt":)") + prompt + R"(,"echo":true,"n":2)";
    const Json json = json_of(http_post(server.port(), kCompletions, fields + "}").body);
    ASSERT_EQ(json["choices"].size(), 2u) << json.dump();
    EXPECT_EQ(json["choices"][0]["text"], "x\nHello, world");
    EXPECT_EQ(json["choices"][1]["text"], "x\nHello, world");
    EXPECT_EQ(json["usage"]["prompt_tokens"], 2);
    Json usage;
    const auto streamed = read_stream(
        http_post(server.port(), kCompletions, fields + R"(,"stream":true})").body, &usage);
    ASSERT_EQ(streamed.size(), 2u);
    EXPECT_EQ(streamed.at(0).text, "x\nHello, world");
    EXPECT_EQ(streamed.at(1).text, "x\nHello, world");
  }
  const Json plain =
      json_of(http_post(server.port(), kCompletions, R"({"prompt":"x\n","echo":false})").body);
  EXPECT_EQ(plain["choices"][0]["text"], "Hello, world");
}

}  // namespace
}  // namespace hotset
