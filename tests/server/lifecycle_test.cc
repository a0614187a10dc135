// SPDX-License-Identifier: Apache-2.0
// Loading, full queues, draining, silence.
#include <gtest/gtest.h>

#include <thread>

#include "server/strict_json.h"
#include "support/test_server.h"

namespace hotset {
namespace {

using test::chat_body;
using test::http_get;
using test::http_post;
using test::HttpAnswer;
using test::HttpClient;
using test::TestServer;
using test::TestServerOptions;

constexpr const char* kChat = "/v1/chat/completions";

void wait_for_running(const TestServer& server, int64_t count) {
  while (server.engine->counters().num_running < count) std::this_thread::yield();
}

TEST(Lifecycle, SaysSoWhileLoading) {
  TestServerOptions options;
  options.is_loaded = false;
  TestServer server(options);
  server.api->set_load_progress(25, 100);
  const HttpAnswer health = http_get(server.port(), "/health");
  EXPECT_EQ(health.status, 503);
  const Json json = *parse_strict_json(health.body);
  EXPECT_EQ(json["status"], "loading");
  EXPECT_EQ(json["loaded_bytes"], 25);
  EXPECT_EQ(json["total_bytes"], 100);
  const HttpAnswer chat = http_post(server.port(), kChat, chat_body());
  EXPECT_EQ(chat.status, 503);
  EXPECT_EQ(chat.headers.count("retry-after"), 1u);
  EXPECT_EQ(http_get(server.port(), "/version").status, 200);
  server.set_loaded();
  EXPECT_EQ(http_get(server.port(), "/health").status, 200);
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 200);
}

TEST(Lifecycle, AFullQueueIsAnAnswer) {
  TestServerOptions options;
  options.engine.max_num_seqs = 1;
  options.engine.max_queued = 1;
  TestServer server(options);
  server.model->close_gate();
  HttpClient running(server.port()), waiting(server.port());
  running.post(kChat, chat_body());
  wait_for_running(server, 1);
  waiting.post(kChat, chat_body());
  while (server.engine->counters().num_waiting < 1) std::this_thread::yield();
  const HttpAnswer refused = http_post(server.port(), kChat, chat_body());
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
  server.model->open_gate();
  EXPECT_EQ(running.read_answer().status, 200);
  EXPECT_EQ(waiting.read_answer().status, 200);
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 200);
}

TEST(Lifecycle, DrainingLetsRunningAnswersFinish) {
  TestServerOptions options;
  options.model.extend_time = std::chrono::milliseconds(5);
  TestServer server(options);
  HttpClient stream(server.port()), whole(server.port());
  stream.post(kChat, chat_body("\"stream\":true"));
  whole.post(kChat, chat_body());
  wait_for_running(server, 2);
  server.api->start_draining();
  EXPECT_EQ(http_get(server.port(), "/health").status, 503);
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 503);
  EXPECT_TRUE(server.http->wait_until_quiet(std::chrono::seconds(10)));
  EXPECT_NE(stream.read_answer().body.find("[DONE]"), std::string::npos);
  EXPECT_EQ(whole.read_answer().status, 200);
}

TEST(Lifecycle, WhatCannotFinishEndsWithAnErrorEvent) {
  TestServerOptions options;
  options.script = [](const std::vector<int32_t>&) { return static_cast<int32_t>('a'); };
  options.model.max_tokens = 1'000'000;
  options.model.extend_time = std::chrono::milliseconds(1);
  options.engine.max_num_seqs = 64;
  TestServer server(options);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 64; ++i) {
    clients.push_back(std::make_unique<HttpClient>(server.port()));
    clients.back()->post(kChat, chat_body(i % 2 == 0 ? "\"stream\":true" : ""));
  }
  wait_for_running(server, 64);
  server.api->start_draining();
  EXPECT_FALSE(server.http->wait_until_quiet(std::chrono::milliseconds(50)));
  server.engine->stop();
  EXPECT_TRUE(server.http->wait_until_quiet(std::chrono::seconds(5)));
  for (size_t i = 0; i < clients.size(); ++i) {
    const HttpAnswer answer = clients[i]->read_answer();
    EXPECT_TRUE(answer.body_is_complete) << i;
    EXPECT_NE(answer.body.find("shutting down"), std::string::npos) << i;
    if (i % 2 == 1) {
      EXPECT_EQ(answer.status, 503);
    }
  }
  server.http->stop();
  HttpClient late(server.port());
  EXPECT_FALSE(late.is_connected());
}

TEST(Lifecycle, SilentStreamsArePinged) {
  TestServerOptions options;
  options.http.ping_interval = std::chrono::milliseconds(20);
  TestServer server(options);
  server.model->close_gate();
  HttpClient client(server.port());
  client.post(kChat, chat_body("\"stream\":true"));
  EXPECT_TRUE(client.read_until(": ping"));
  server.model->open_gate();
  EXPECT_TRUE(client.read_until("[DONE]"));
}

TEST(Lifecycle, StoppingClosesIdleAndBusyConnections) {
  auto server = std::make_unique<TestServer>();
  HttpClient idle(server->port()), busy(server->port());
  idle.get("/health");
  EXPECT_EQ(idle.read_answer().status, 200);
  server->model->close_gate();
  busy.post(kChat, chat_body("\"stream\":true"));
  EXPECT_TRUE(busy.read_until("assistant"));
  server->model->open_gate();
  server.reset();
  EXPECT_TRUE(idle.is_closed_within(2));
  EXPECT_TRUE(busy.is_closed_within(2));
}

TEST(Lifecycle, APortInUseIsAnError) {
  TestServer server;
  HttpServerOptions options;
  options.port = server.port();
  const auto second = HttpServer::start(*server.api, options);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().kind, ErrorKind::kResource);
  options.host = "not an address";
  EXPECT_FALSE(HttpServer::start(*server.api, options).has_value());
}

// A lost device ends every answer with an error, refuses later ones with it, and tells the program.
TEST(Lifecycle, ALostDeviceIsAnAnswerToAll) {
  TestServerOptions options;
  options.engine.max_num_seqs = 1;
  TestServer server(options);
  server.model->close_gate();
  server.model->set_fault([](const std::vector<int32_t>&) -> Status {
    return fail("cudaStreamSynchronize: an illegal memory access", ErrorKind::kDeviceLost);
  });
  HttpClient running(server.port()), waiting(server.port());
  running.post(kChat, chat_body());
  wait_for_running(server, 1);
  waiting.post(kChat, chat_body());
  while (server.engine->counters().num_waiting < 1) std::this_thread::yield();
  EXPECT_FALSE(server.engine->device_lost());
  server.model->open_gate();
  for (HttpClient* client : {&running, &waiting}) {
    const HttpAnswer answer = client->read_answer();
    EXPECT_EQ(answer.status, 500);
    EXPECT_NE(answer.body.find("illegal memory access"), std::string::npos) << answer.body;
    EXPECT_NE(answer.body.find("device_lost"), std::string::npos) << answer.body;
  }
  ASSERT_TRUE(server.engine->device_lost());
  EXPECT_EQ(server.engine->device_lost()->kind, ErrorKind::kDeviceLost);
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 500);
}

// Any other failure ends its own answer.
TEST(Lifecycle, AFailureThatIsNoLossEndsOneAnswer) {
  TestServer server;
  server.model->set_fault([](const std::vector<int32_t>&) -> Status {
    return fail("cudaGraphLaunch: a failure", ErrorKind::kInternal);
  });
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 500);
  EXPECT_FALSE(server.engine->device_lost());
  server.model->set_fault({});
  EXPECT_EQ(http_post(server.port(), kChat, chat_body()).status, 200);
}

}  // namespace
}  // namespace hotset
