// SPDX-License-Identifier: Apache-2.0
// Clients that leave: in the queue, in the prefill, while tokens come, with and without a stream,
// whatever other traffic there is. The engine must be free again at once.
#include <gtest/gtest.h>

#include <thread>

#include "support/test_server.h"

namespace hotset {
namespace {

using test::chat_body;
using test::HttpClient;
using test::TestServer;
using test::TestServerOptions;

constexpr const char* kChat = "/v1/chat/completions";
constexpr double kFreedWithin_s = 0.25;

// Says 'a' for ever, a token a millisecond, prompts in small chunks.
TestServerOptions endless() {
  TestServerOptions options;
  options.script = [](const std::vector<int32_t>&) { return static_cast<int32_t>('a'); };
  options.model.max_tokens = 1'000'000;
  options.model.extend_time = std::chrono::milliseconds(1);
  options.engine.max_num_seqs = 2;
  return options;
}

bool wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 5000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

class Disconnect : public ::testing::TestWithParam<bool> {
 protected:
  static std::string body() { return chat_body(GetParam() ? "\"stream\":true" : ""); }
};

TEST_P(Disconnect, WhileTokensCome) {
  TestServer server(endless());
  for (int round = 0; round < 20; ++round) {
    HttpClient client(server.port());
    client.post(kChat, body());
    ASSERT_TRUE(wait_for([&] { return server.engine->counters().num_running == 1; }));
    if (GetParam()) {
      ASSERT_TRUE(client.read_until("\"content\":\"a\""));
    }
    client.close();
    ASSERT_TRUE(server.engine_is_idle_within(kFreedWithin_s)) << "round " << round;
  }
}

TEST_P(Disconnect, DuringThePrefill) {
  TestServer server(endless());
  const std::string text(5000, 'x');  // 600 chunks of a millisecond
  HttpClient client(server.port());
  client.post(kChat, R"({"messages":[{"role":"user","content":")" + text + "\"}]" +
                         (GetParam() ? ",\"stream\":true}" : "}"));
  ASSERT_TRUE(wait_for([&] { return server.model->num_extends > 3; }));
  client.close();
  EXPECT_TRUE(server.engine_is_idle_within(kFreedWithin_s));
  EXPECT_LT(server.model->num_tokens_fed, 5000);
}

TEST_P(Disconnect, InTheQueueBehindOthers) {
  TestServer server(endless());
  HttpClient first(server.port()), second(server.port()), waiting(server.port());
  first.post(kChat, chat_body("\"stream\":true"));
  second.post(kChat, chat_body());
  ASSERT_TRUE(wait_for([&] { return server.engine->counters().num_running == 2; }));
  waiting.post(kChat, body());
  ASSERT_TRUE(wait_for([&] { return server.engine->counters().num_waiting == 1; }));
  waiting.close();
  EXPECT_TRUE(wait_for([&] { return server.engine->counters().num_waiting == 0; }));
  EXPECT_EQ(server.engine->counters().num_running, 2) << "the others go on";
}

TEST_P(Disconnect, DuringTheUpload) {
  TestServer server(endless());
  HttpClient client(server.port());
  client.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
      "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"messages\"");
  ASSERT_TRUE(wait_for([&] { return server.http->num_connections() == 1; }));
  client.close();
  EXPECT_TRUE(wait_for([&] { return server.http->num_connections() == 0; }));
  EXPECT_EQ(server.engine->counters().num_submitted, 0);
}

TEST_P(Disconnect, WithPipelinedBytesInTheWay) {
  TestServer server(endless());
  HttpClient client(server.port());
  client.post(kChat, body());
  ASSERT_TRUE(wait_for([&] { return server.engine->counters().num_running == 1; }));
  client.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(server.engine->counters().num_running, 1) << "more bytes are no departure";
  client.close();
  EXPECT_TRUE(server.engine_is_idle_within(kFreedWithin_s));
}

INSTANTIATE_TEST_SUITE_P(StreamAndWhole, Disconnect, ::testing::Bool(),
                         [](const auto& instance) { return instance.param ? "Stream" : "Whole"; });

// A reader that never reads: the engine goes on for a while, then gives up on it; others are
// served.
TEST(SlowReader, LosesItsAnswerAndDisturbsNobody) {
  TestServerOptions options = endless();
  options.model.extend_time = std::chrono::microseconds(0);
  options.http.write_timeout = std::chrono::milliseconds(500);
  TestServer server(options);
  HttpClient reader(server.port());
  reader.post(kChat, chat_body("\"stream\":true"));
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(test::http_post(server.port(), kChat, chat_body("\"max_tokens\":5")).status, 200);
  }
  EXPECT_TRUE(server.engine_is_idle_within(20));
  EXPECT_TRUE(server.http->wait_until_quiet(std::chrono::seconds(5)));
}

}  // namespace
}  // namespace hotset
