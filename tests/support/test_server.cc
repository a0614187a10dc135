// SPDX-License-Identifier: Apache-2.0
#include "support/test_server.h"

#include <thread>
#include <utility>

#include "base/check.h"

namespace hotset::test {

TestServer::TestServer(TestServerOptions options) : tokenizer(make_toy_tokenizer()) {
  // Prompts end with a newline (chat) or with whatever (completions); what the model has said since
  // the last newline tells it how far it is.
  FakeModel::Script script = options.script;
  if (!script) {
    script = scripted_after(toy_ids(tokenizer, "\n")[0], toy_ids(tokenizer, options.says), kToyEos);
  }
  model = std::make_unique<FakeModel>(options.model, std::move(script));
  options.engine.num_valid_tokens = kToyVocabSize;
  options.engine.eos_ids = {kToyEos};
  auto started = Engine::start(*model, options.engine);
  HS_CHECK(started.has_value(), "{}", started.error().message);
  engine = std::move(started).value();
  if (options.api.version.empty()) options.api.version = "test";
  if (options.api.access.allowed_hosts.empty()) {
    options.api.access.allowed_hosts = allowed_hosts_for("127.0.0.1", {});
  }
  api = std::make_unique<Api>(options.api);
  if (options.is_loaded) set_loaded();
  auto server = HttpServer::start(*api, options.http);
  HS_CHECK(server.has_value(), "{}", server.error().message);
  http = std::move(server).value();
}

TestServer::~TestServer() {
  model->open_gate();
  http->stop();
  engine->stop();
}

void TestServer::set_loaded() {
  ServedModel served;
  served.tokenizer = &tokenizer;
  served.dialect = &dialect;
  served.engine = engine.get();
  served.defaults.eos_ids = {kToyEos};
  served.defaults.params.temperature = 0;
  served.names = {"toy", "toy-alias"};
  api->set_model(std::move(served));
}

bool TestServer::engine_is_idle_within(double seconds) const {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    const EngineCounters counters = engine->counters();
    if (counters.num_running == 0 && counters.num_waiting == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

std::string chat_body(const std::string& extra_fields) {
  return R"({"messages":[{"role":"user","content":"Hi"}])" +
         (extra_fields.empty() ? "" : "," + extra_fields) + "}";
}

}  // namespace hotset::test
