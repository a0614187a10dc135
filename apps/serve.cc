// SPDX-License-Identifier: Apache-2.0
// hotset serve: the HTTP server comes up first and says "loading"; then the model; then requests
// until SIGTERM or SIGINT, which let running answers finish.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <thread>
#include <utility>

#include "expert_profile.h"
#include "loaded_model.h"
#include "progress.h"
#include "report_error.h"
#include "server/api.h"
#include "server/chat_dialect.h"
#include "server/http_server.h"
#include "tokenizer/tokenizer.h"
#include "verbs.h"

namespace hotset {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kDeviceLostTime{100};   // from a lost GPU to a server that says so
constexpr milliseconds kErrorEventTime{1000};  // for streams to send their last event

// SIGTERM and SIGINT, blocked in every thread from here on and waited for in one place.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  [[nodiscard]] bool arrives_within(milliseconds patience) const {
    const timespec time{patience.count() / 1000, (patience.count() % 1000) * 1'000'000};
    return sigtimedwait(&set_, nullptr, &time) > 0;
  }

 private:
  sigset_t set_{};
};

Status check_options(const ServeOptions& options) {
  HS_RETURN_IF_ERROR(check_listen_host(options.host));
  if (!is_loopback_host(options.host) && options.api_keys.empty()) {
    return fail(
        fmt::format("--host {} can be reached from the network: give --api-key as well "
                    "(or set HOTSET_API_KEY)",
                    options.host));
  }
  for (const std::string& key : options.api_keys) {
    if (key.empty()) return fail("--api-key must not be empty");
  }
  return {};
}

ApiOptions api_options(const ServeOptions& options) {
  ApiOptions api;
  api.access.api_keys = options.api_keys;
  api.access.allowed_hosts = allowed_hosts_for(options.host, options.allowed_hosts);
  api.version = HOTSET_VERSION;
  if (!options.model.quiet) {
    api.log = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  }
  return api;
}

EngineOptions engine_options(const ServeOptions& options, const LoadedModel& model) {
  EngineOptions engine;
  engine.num_valid_tokens = model.num_valid_tokens;
  engine.eos_ids = model.defaults.eos_ids;
  engine.max_num_seqs = static_cast<size_t>(options.max_num_seqs);
  engine.max_queued = static_cast<size_t>(options.max_queued);
  engine.seed = options.seed ? static_cast<uint64_t>(*options.seed) : std::random_device()();
  return engine;
}

ServedModel served_model(const ServeOptions& options, const LoadedModel& model, Engine& engine) {
  ServedModel served;
  served.tokenizer = model.tokenizer.get();
  served.dialect = model.dialect.get();
  served.engine = &engine;
  served.defaults = model.defaults;
  served.names = options.served_model_names;
  if (served.names.empty()) served.names = {model.name};
  served.created_s = static_cast<int64_t>(std::time(nullptr));
  return served;
}

// Loads in a thread of its own, so that a signal during the load ends the program at once: nothing
// has been promised to anybody yet.
Result<LoadedModel> load_interruptibly(const ServeOptions& options, Api& api,
                                       const StopSignals& signals) {
  LoadProgressPrinter printer(options.model.quiet);
  Result<LoadedModel> model = fail("not loaded");
  std::atomic<bool> is_done{false};
  std::thread loader([&] {
    model = load_model(options.model, options.max_num_seqs, /*fixed_num_seqs=*/1,
                       [&](int64_t done_bytes, int64_t total_bytes, double elapsed_s) {
                         api.set_load_progress(done_bytes, total_bytes);
                         printer.update(done_bytes, total_bytes, elapsed_s);
                       });
    if (model) {
      const Status ready = model->model->prepare_batches(options.max_num_seqs);
      if (!ready) model = fail(ready.error());
    }
    is_done = true;
  });
  while (!is_done) {
    if (!signals.arrives_within(milliseconds(50))) continue;
    fmt::print(stderr, "stopped while loading\n");
    std::fflush(nullptr);
    std::_Exit(kExitFine);
  }
  loader.join();
  return model;
}

// Running answers may finish; a second signal or the end of patience turns them into error events.
void drain(const ServeOptions& options, Api& api, HttpServer& http, Engine& engine,
           const StopSignals& signals) {
  api.start_draining();
  if (!options.model.quiet) {
    fmt::print(stderr, "stopping; {} answers are under way\n", http.num_open_answers());
  }
  const auto end = std::chrono::steady_clock::now() + seconds(options.drain_seconds);
  while (std::chrono::steady_clock::now() < end) {
    if (http.wait_until_quiet(milliseconds(20))) break;
    if (signals.arrives_within(milliseconds(1))) break;
  }
  engine.stop();
  http.wait_until_quiet(kErrorEventTime);
  http.stop();
}

// Nothing can be computed any more: every answer under way has got its error.
void end_at_once(Api& api, HttpServer& http, Engine& engine) {
  api.start_draining();
  engine.stop();
  http.wait_until_quiet(kErrorEventTime);
  http.stop();
}

Status serve(const ServeOptions& options) {
  HS_RETURN_IF_ERROR(check_options(options));
  HS_RETURN_IF_ERROR(find_model(options.model));  // before a port is taken
  HS_RETURN_IF_ERROR(to_model_options(options.model));
  const StopSignals signals;
  Api api(api_options(options));
  HttpServerOptions http_options;
  http_options.host = options.host;
  http_options.port = static_cast<uint16_t>(options.port);
  HS_ASSIGN_OR_RETURN(const auto http, HttpServer::start(api, http_options));
  HS_ASSIGN_OR_RETURN(LoadedModel model, load_interruptibly(options, api, signals));
  HS_ASSIGN_OR_RETURN(const auto engine,
                      Engine::start(*model.model, engine_options(options, model)));
  const ServedModel served = served_model(options, model, *engine);
  const std::string name = served.names.front();
  api.set_model(served);
  if (!options.model.quiet) {
    fmt::print(stderr, "serving {} on http://{}:{}/v1 (context {} tokens)\n", name, options.host,
               http->port(), engine->max_tokens());
  }
  while (!signals.arrives_within(kDeviceLostTime)) {
    if (const auto lost = engine->device_lost()) {
      end_at_once(api, *http, *engine);
      return fail(*lost);
    }
  }
  drain(options, api, *http, *engine, signals);
  if (const auto lost = engine->device_lost()) return fail(*lost);
  save_expert_profile(options.model, model.recorder.get());
  return {};
}

}  // namespace

int run_serve(const ServeOptions& options) {
  const Status status = serve(options);
  return status ? kExitFine : report_error(status.error());
}

}  // namespace hotset
