// SPDX-License-Identifier: Apache-2.0
// HTTP itself: malformed requests, limits, timeouts, keep-alive, pipelining, Host and keys.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "server/routes.h"
#include "server/strict_json.h"
#include "support/test_server.h"

namespace hotset {
namespace {

using std::chrono::milliseconds;
using test::chat_body;
using test::HttpAnswer;
using test::HttpClient;
using test::TestServer;
using test::TestServerOptions;

constexpr const char* kChat = "/v1/chat/completions";

TestServerOptions with_short_timeouts() {
  TestServerOptions options;
  options.http.header_timeout = milliseconds(200);
  options.http.body_gap_timeout = milliseconds(200);
  options.http.body_timeout = milliseconds(600);
  options.http.idle_timeout = milliseconds(200);
  return options;
}

HttpAnswer send_raw(uint16_t port, const std::string& bytes) {
  HttpClient client(port);
  client.send(bytes);
  return client.read_answer(3);
}

TEST(Http, MalformedRequestsGetAnErrorOrAClosedDoor) {
  TestServer server(with_short_timeouts());
  const std::string host = "Host: localhost\r\n";
  const std::string json = "Content-Type: application/json\r\n";
  const std::vector<std::string> requests = {
      "\r\n\r\n",
      "GET\r\n\r\n",
      "GET /health\r\n\r\n",
      "GET /health HTTP/9.9\r\n" + host + "\r\n",
      "GET /health HTTP/1.1\r\nHost localhost\r\n\r\n",
      "GET  /health HTTP/1.1\r\n" + host + "\r\n",
      "G\x01T /health HTTP/1.1\r\n" + host + "\r\n",
      std::string("GET /hea\0lth HTTP/1.1\r\n", 23) + host + "\r\n",
      "GET /health HTTP/1.1\r\n" + host + "Bad Header: x\r\n\r\n",
      "GET /health HTTP/1.1\r\n" + host + "X: a\r\n b: c\x01\r\n\r\n",
      "POST " + std::string(kChat) + " HTTP/1.1\r\n" + host + json + "Content-Length: -1\r\n\r\n",
      "POST " + std::string(kChat) + " HTTP/1.1\r\n" + host + json + "Content-Length: 1x\r\n\r\n",
      "POST " + std::string(kChat) + " HTTP/1.1\r\n" + host + json +
          "Content-Length: 99999999999999999999\r\n\r\n",
      "POST " + std::string(kChat) + " HTTP/1.1\r\n" + host + json +
          "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
      "POST " + std::string(kChat) + " HTTP/1.1\r\n" + host + json +
          "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST " + std::string(kChat) + " HTTP/1.1\r\n" + host + json +
          "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
      "POST " + std::string(kChat) + " HTTP/1.1\r\n" + host + json +
          "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
      "POST " + std::string(kChat) + " HTTP/1.1\r\n" + host + json +
          "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n",
      "\x16\x03\x01\x02\x01\x01\xfc\x03\x03TLS hello",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      std::string(40'000, 'A'),
      "GET /" + std::string(40'000, 'a') + " HTTP/1.1\r\n" + host + "\r\n",
      "GET /health HTTP/1.1\r\n" + host + "X: " + std::string(40'000, 'a') + "\r\n\r\n",
  };
  for (const std::string& request : requests) {
    const HttpAnswer answer = send_raw(server.port(), request);
    EXPECT_NE(answer.status, 200) << request.substr(0, 80);
    EXPECT_LT(answer.status, 500) << request.substr(0, 80);
    EXPECT_EQ(test::http_get(server.port(), "/health").status, 200) << request.substr(0, 80);
  }
}

TEST(Http, HeaderAndBodyHaveLimits) {
  TestServerOptions options;
  options.http.max_body_bytes = 1000;
  TestServer server(options);
  EXPECT_EQ(send_raw(server.port(), "GET /health HTTP/1.1\r\nHost: localhost\r\nX: " +
                                        std::string(17'000, 'a') + "\r\n\r\n")
                .status,
            431);
  const std::string fits = chat_body(R"("user":")" + std::string(800, 'u') + "\"");
  EXPECT_EQ(test::http_post(server.port(), kChat, fits).status, 200);
  const std::string too_large = chat_body(R"("user":")" + std::string(1000, 'u') + "\"");
  const HttpAnswer refused = test::http_post(server.port(), kChat, too_large);
  EXPECT_EQ(refused.status, 413);
  EXPECT_NE(refused.body.find("body_too_large"), std::string::npos);
  HttpClient chunked(server.port());
  chunked.send("POST " + std::string(kChat) +
               " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
               "Transfer-Encoding: chunked\r\n\r\n" +
               fmt::format("{:x}\r\n{}\r\n0\r\n\r\n", too_large.size(), too_large));
  EXPECT_EQ(chunked.read_answer().status, 413);
}

TEST(Http, TakesChunkedBodiesAndExpectContinue) {
  TestServer server;
  const std::string body = chat_body();
  HttpClient client(server.port());
  client.send("POST " + std::string(kChat) +
              " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; charset=utf-8\r\n"
              "Transfer-Encoding: chunked\r\n\r\n");
  for (const char c : body) client.send(fmt::format("1\r\n{}\r\n", c));
  client.send("0\r\n\r\n");
  EXPECT_EQ(client.read_answer().status, 200);
  client.send(
      fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  "Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
                  kChat, body.size()));
  EXPECT_TRUE(client.read_until("100 Continue\r\n\r\n"));
  client.send(body);
  EXPECT_TRUE(client.read_until("Hello, world"));
}

TEST(Http, ContentTypeMethodAndPathAreChecked) {
  TestServer server;
  const std::string body = chat_body();
  for (const char* type : {"text/plain", "application/x-www-form-urlencoded", "application/jsonp",
                           "multipart/form-data; boundary=x", ""}) {
    HttpClient client(server.port());
    client.send(fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: {}\r\n\r\n{}",
                            kChat, *type == 0 ? "" : fmt::format("Content-Type: {}\r\n", type),
                            body.size(), body));
    EXPECT_EQ(client.read_answer().status, 415) << type;
  }
  const HttpAnswer wrong_method = test::http_get(server.port(), kChat);
  EXPECT_EQ(wrong_method.status, 405);
  EXPECT_EQ(wrong_method.headers.at("allow"), "POST");
  EXPECT_EQ(test::http_get(server.port(), "/nope").status, 404);
  EXPECT_EQ(test::http_get(server.port(), "/v1/models?x=1").status, 200);
  for (const char* method : {"PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"}) {
    const int status =
        send_raw(server.port(),
                 fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\n\r\n", method, kChat))
            .status;
    EXPECT_TRUE(status == 405 || status == 400) << method << " " << status;
  }
}

TEST(Http, HeadIsGetWithoutTheBody) {
  TestServer server;
  for (const char* path : {"/health", "/v1/models", "/nothing", "/v1/chat/completions"}) {
    const int status = test::http_get(server.port(), path).status;
    HttpClient client(server.port());
    client.send("HEAD " + std::string(path) +
                " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    const HttpAnswer answer = client.read_answer();
    EXPECT_EQ(answer.status, status) << path;
    EXPECT_GT(std::stoi(answer.headers.at("content-length")), 0);
    EXPECT_TRUE(answer.body.empty()) << answer.body;
  }
  HttpClient client(server.port());
  client.send("HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(client.read_until("keep-alive\r\n\r\n"));
  client.get("/version");
  EXPECT_TRUE(client.read_until("\"version\":\"test\""));
}

TEST(Http, SlowSendersAreClosed) {
  TestServer server(with_short_timeouts());
  HttpClient silent(server.port());
  HttpClient header(server.port());
  header.send("GET /health HT");
  HttpClient body(server.port());
  body.send("POST " + std::string(kChat) +
            " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Content-Length: 100\r\n\r\n{");
  HttpClient idle(server.port());
  idle.get("/health");
  EXPECT_EQ(idle.read_answer().status, 200);
  EXPECT_EQ(test::http_get(server.port(), "/health").status, 200) << "others are served meanwhile";
  for (HttpClient* client : {&silent, &header, &body, &idle}) {
    EXPECT_TRUE(client->is_closed_within(3));
  }
}

TEST(Http, ABodyThatDripsRunsOutOfTime) {
  TestServer server(with_short_timeouts());
  HttpClient client(server.port());
  client.send("POST " + std::string(kChat) +
              " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
              "Content-Length: 1000\r\n\r\n");
  bool is_closed = false;
  for (int i = 0; i < 40 && !is_closed; ++i) {
    client.send("x");
    is_closed = client.is_closed_within(0.1);
  }
  EXPECT_TRUE(is_closed);
}

TEST(Http, ThousandRequestsOnOneConnection) {
  TestServer server;
  HttpClient client(server.port());
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(client.get("/health"));
    ASSERT_EQ(client.read_answer().status, 200) << i;
  }
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(client.post(kChat, chat_body(i % 2 == 0 ? "" : "\"stream\":true")));
    const HttpAnswer answer = client.read_answer();
    ASSERT_EQ(answer.status, 200) << i;
    ASSERT_TRUE(answer.body_is_complete);
  }
  EXPECT_EQ(server.http->num_connections(), 1);
}

TEST(Http, PipelinedRequestsAreAnsweredInOrder) {
  TestServer server;
  HttpClient client(server.port());
  const std::string body = chat_body("\"stream\":true");
  client.send(
      fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  "Content-Length: {}\r\n\r\n{}GET /version HTTP/1.1\r\nHost: localhost\r\n"
                  "\r\nGET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n"
                  "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
                  kChat, body.size(), body));
  const HttpAnswer first = client.read_answer();
  EXPECT_NE(first.body.find("[DONE]"), std::string::npos);
  EXPECT_NE(client.read_answer().body.find("version"), std::string::npos);
  EXPECT_EQ(client.read_answer().status, 404);
  EXPECT_NE(client.read_answer().body.find("ok"), std::string::npos);
}

TEST(Http, Http10GetsAPlainStream) {
  TestServer server;
  HttpClient client(server.port());
  const std::string body = chat_body("\"stream\":true");
  client.send(
      fmt::format("POST {} HTTP/1.0\r\nContent-Type: application/json\r\n"
                  "Content-Length: {}\r\n\r\n{}",
                  kChat, body.size(), body));
  const HttpAnswer answer = client.read_answer();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.count("transfer-encoding"), 0u);
  EXPECT_NE(answer.body.find("[DONE]"), std::string::npos);
}

TEST(Http, ForeignHostNamesAreRefused) {
  TestServer server;
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "x"}) {
    const HttpAnswer answer =
        send_raw(server.port(), fmt::format("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host));
    EXPECT_EQ(answer.status, 403) << host;
    EXPECT_EQ(answer.headers.count("access-control-allow-origin"), 0u);
  }
  EXPECT_EQ(send_raw(server.port(), "GET /health HTTP/1.1\r\n\r\n").status, 400);
  EXPECT_EQ(
      send_raw(server.port(), "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
          .status,
      400);
  EXPECT_EQ(send_raw(server.port(), "GET /health HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n").status,
            200);
}

TEST(Http, EveryRouteButHealthWantsTheKey) {
  TestServerOptions options;
  options.api.access.api_keys = {"secret"};
  TestServer server(options);
  const auto status_of = [&](const Route& route, const std::string& header) {
    const std::string path = std::string(route.path) + (route.takes_suffix ? "toy" : "");
    return send_raw(server.port(),
                    fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                                "application/json\r\nContent-Length: 2\r\n{}\r\n{{}}",
                                route.method, path, header))
        .status;
  };
  for (const Route& route : routes()) {
    for (const char* header :
         {"", "Authorization: Bearer wrong\r\n", "Authorization: Bearer secre\r\n",
          "Authorization: secret\r\n", "Authorization: Basic secret\r\n", "X-Api-Key: Secret\r\n",
          "Authorization: Bearer secret2\r\n", "Cookie: key=secret\r\n"}) {
      const int status = status_of(route, header);
      EXPECT_EQ(status == 401, !route.is_public) << route.path << " " << header << status;
    }
    EXPECT_NE(status_of(route, "Authorization: Bearer secret\r\n"), 401) << route.path;
    EXPECT_NE(status_of(route, "x-api-key: secret\r\n"), 401) << route.path;
  }
  EXPECT_EQ(test::http_get(server.port(), "/unknown").status, 401) << "routes can't be probed";
}

TEST(Http, TooManyConnectionsAreToldSo) {
  TestServerOptions options;
  options.http.max_connections = 4;
  TestServer server(options);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<HttpClient>(server.port()));
    clients.back()->get("/health");
    ASSERT_EQ(clients.back()->read_answer().status, 200);
  }
  HttpClient extra(server.port());
  EXPECT_EQ(extra.read_answer().status, 503);
  clients.clear();
  for (int i = 0; i < 100; ++i) {
    if (test::http_get(server.port(), "/health").status == 200) return;
  }
  FAIL() << "room again after the others left";
}

}  // namespace
}  // namespace hotset
