// SPDX-License-Identifier: Apache-2.0
// A whole server on a free port with a scripted model behind it. By default it answers every prompt
// with "Hello, world" and ends.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "server/api.h"
#include "server/http_server.h"
#include "support/fake_model.h"
#include "support/http_client.h"
#include "support/plain_dialect.h"
#include "support/toy_tokenizer.h"

namespace hotset::test {

struct TestServerOptions {
  std::string says = "Hello, world";  // may hold added tokens of the toy tokenizer
  FakeModel::Script script = {};      // instead of `says`, when set
  FakeModelOptions model{.vocab_size = 300, .max_tokens = 2048};
  EngineOptions engine = {};
  HttpServerOptions http{.port = 0};
  ApiOptions api = {};
  bool is_loaded = true;
};

class TestServer {
 public:
  explicit TestServer(TestServerOptions options = {});
  ~TestServer();

  [[nodiscard]] uint16_t port() const { return http->port(); }
  void set_loaded();
  // True as soon as nothing runs or waits in the engine.
  [[nodiscard]] bool engine_is_idle_within(double seconds) const;

  Tokenizer tokenizer;
  PlainDialect dialect;
  std::unique_ptr<FakeModel> model;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Api> api;
  std::unique_ptr<HttpServer> http;
};

// {"messages":[{"role":"user","content":"Hi"}], …extra}
[[nodiscard]] std::string chat_body(const std::string& extra_fields = "");

}  // namespace hotset::test
