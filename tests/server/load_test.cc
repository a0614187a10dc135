// SPDX-License-Identifier: Apache-2.0
// Many at once: each gets its own answer, idle sockets hold up nobody, nothing is left behind.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "server/strict_json.h"
#include "support/test_server.h"

namespace hotset {
namespace {

using test::HttpAnswer;
using test::HttpClient;
using test::TestServer;
using test::TestServerOptions;

// Repeats what stands between the last '#' and the ';' after it, then ends: a secret that must come
// back to the one who sent it.
int32_t echo_secret(const std::vector<int32_t>& ids) {
  const auto hash = std::find(ids.rbegin(), ids.rend(), static_cast<int32_t>('#')).base();
  const auto end = std::find(hash, ids.end(), static_cast<int32_t>(';'));
  if (end == ids.end()) return test::kToyEos;
  const std::vector<int32_t> secret(hash, end);
  const auto said = static_cast<size_t>(ids.end() - end) - 1;
  return said < secret.size() ? secret[said] : test::kToyEos;
}

std::string secret_body(const std::string& secret, bool stream) {
  return fmt::format(R"({{"prompt":"shared prefix #{};","max_tokens":64,"stream":{}}})", secret,
                     stream);
}

std::string text_of(const HttpAnswer& answer, bool stream) {
  if (!stream) return (*parse_strict_json(answer.body))["choices"][0]["text"];
  std::string text;
  for (const std::string& event : test::sse_data(answer.body)) {
    if (event == "[DONE]") return text;
    const Json json = *parse_strict_json(event);
    text += json["choices"][0]["text"].get<std::string>();
  }
  return text + " (no end)";
}

TEST(Load, EverybodyGetsTheirOwnSecret) {
  TestServerOptions options;
  options.script = echo_secret;
  options.engine.max_num_seqs = 8;
  options.engine.max_queued = 256;
  options.engine.num_kept_sequences = 2;
  TestServer server(options);
  std::atomic<int> num_good{0};
  std::vector<std::thread> users;
  for (int user = 0; user < 32; ++user) {
    users.emplace_back([&, user] {
      HttpClient client(server.port());
      for (int i = 0; i < 20; ++i) {
        const bool stream = (user + i) % 2 == 0;
        const std::string secret = fmt::format("user {} round {}", user, i);
        if (i % 7 == 6) {  // some leave in the middle
          HttpClient leaver(server.port());
          leaver.post("/v1/completions", secret_body(secret, stream));
        }
        client.post("/v1/completions", secret_body(secret, stream));
        const HttpAnswer answer = client.read_answer(30);
        if (answer.status == 200 && text_of(answer, stream) == secret) ++num_good;
      }
    });
  }
  for (std::thread& user : users) user.join();
  EXPECT_EQ(num_good, 32 * 20);
  EXPECT_TRUE(server.engine_is_idle_within(5));
  EXPECT_TRUE(server.http->wait_until_quiet(std::chrono::seconds(5)));
}

TEST(Load, IdleSocketsHoldUpNobody) {
  TestServer server;
  std::vector<std::unique_ptr<HttpClient>> idle;
  for (int i = 0; i < 400; ++i) {
    idle.push_back(std::make_unique<HttpClient>(server.port()));
    if (!idle.back()->is_connected()) break;
    if (i % 2 == 0) idle.back()->send("GET /health HTTP/1.1\r\nHo");
  }
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(test::http_get(server.port(), "/health").status, 200);
  EXPECT_EQ(test::http_post(server.port(), "/v1/chat/completions", test::chat_body()).status, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

TEST(Load, BurstsBeyondTheQueueLoseNobody) {
  TestServerOptions options;
  options.engine.max_num_seqs = 4;
  options.engine.max_queued = 16;
  TestServer server(options);
  std::atomic<int> num_served{0}, num_refused{0}, num_other{0};
  std::vector<std::thread> users;
  for (int user = 0; user < 100; ++user) {
    users.emplace_back([&] {
      const HttpAnswer answer =
          test::http_post(server.port(), "/v1/chat/completions", test::chat_body());
      ++(answer.status == 200 ? num_served : answer.status == 429 ? num_refused : num_other);
    });
  }
  for (std::thread& user : users) user.join();
  EXPECT_EQ(num_served + num_refused, 100);
  EXPECT_EQ(num_other, 0);
  EXPECT_GE(num_served, 4);
  EXPECT_EQ(server.engine->counters().num_refused, num_refused);
}

}  // namespace
}  // namespace hotset
