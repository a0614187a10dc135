// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 over TCP: one thread waits for all sockets (no thread a connection), two more render and
// tokenize, so that a long prompt does not hold up a stream or a health check. Everything a client
// can make grow or last has a limit here.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "server/http_message.h"

namespace hotset {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: any free one
  size_t max_header_bytes = 16 << 10;
  size_t max_body_bytes = 16 << 20;
  size_t max_connections = 12'000;
  size_t num_text_threads = 2;
  std::chrono::milliseconds header_timeout{10'000};    // first byte of a request to its last header
  std::chrono::milliseconds body_gap_timeout{10'000};  // between two pieces of a body
  std::chrono::milliseconds body_timeout{120'000};     // the whole body
  std::chrono::milliseconds idle_timeout{75'000};      // between two requests
  std::chrono::milliseconds write_timeout{30'000};     // one write to a client that does not read
  std::chrono::milliseconds ping_interval{15'000};     // comments in a silent stream
};

// Whether `host` can be listened on: an IP address, or "localhost".
[[nodiscard]] Status check_listen_host(const std::string& host);

class HttpServer {
 public:
  // Binds, listens and serves from now on. The handler must outlive the server.
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> start(HttpHandler& handler,
                                                                 HttpServerOptions options);
  virtual ~HttpServer() = default;

  [[nodiscard]] virtual uint16_t port() const = 0;
  // Answers whose bytes are still to come.
  [[nodiscard]] virtual int64_t num_open_answers() const = 0;
  [[nodiscard]] virtual int64_t num_connections() const = 0;
  // Waits until no answer is open, at most `patience`; false: some still are. New requests are the
  // handler's to refuse.
  virtual bool wait_until_quiet(std::chrono::milliseconds patience) = 0;
  // Closes every socket and ends the threads. The destructor does the same.
  virtual void stop() = 0;
};

}  // namespace hotset
