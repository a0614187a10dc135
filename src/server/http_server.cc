// SPDX-License-Identifier: Apache-2.0
#include "server/http_server.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <exception>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "server/connection.h"
#include "server/http_text.h"

namespace hotset {
namespace {

namespace net = boost::asio;
using boost::system::error_code;
using net::ip::tcp;

constexpr std::chrono::milliseconds kAcceptPause{50};

net::ip::address address_of(const std::string& host, error_code& error) {
  return net::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
}

class TcpServer : public HttpServer {
 public:
  TcpServer(HttpHandler& handler, HttpServerOptions options)
      : options_(std::move(options)), context_{handler, options_, text_work_}, acceptor_(io_) {}

  ~TcpServer() override { stop(); }

  Status listen();
  uint16_t port() const override { return port_; }
  int64_t num_open_answers() const override { return context_.num_open_answers; }
  int64_t num_connections() const override { return context_.num_connections; }
  bool wait_until_quiet(std::chrono::milliseconds patience) override;
  void stop() override;

 private:
  net::awaitable<void> accept_all();
  net::awaitable<bool> accept_one();
  void open_connection(tcp::socket socket);
  net::awaitable<void> run_connection(std::shared_ptr<Connection> connection);

  HttpServerOptions options_;
  net::io_context text_work_;
  ServerContext context_;
  std::set<std::shared_ptr<Connection>> connections_;  // network thread only
  net::io_context io_{1};  // destroyed before what its coroutines refer to
  tcp::acceptor acceptor_;
  uint16_t port_ = 0;
  std::thread thread_;
  std::optional<net::executor_work_guard<net::io_context::executor_type>> text_guard_;
  std::vector<std::thread> text_threads_;
};

// Runs what comes until there is no more. A handler that throws (for lack of memory) takes its own
// connection with it and leaves the thread to the others.
void run_all(net::io_context& work) {
  while (true) {
    try {
      work.run();
      return;
    } catch (const std::exception&) {
      continue;
    }
  }
}

Status TcpServer::listen() {
  HS_RETURN_IF_ERROR(check_listen_host(options_.host));
  error_code error;
  const tcp::endpoint endpoint(address_of(options_.host, error), options_.port);
  const auto failed = [&](const char* what) {
    const char* next = "";
    if (error == net::error::address_in_use) next = "; another server runs there: try --port";
    if (error == net::error::access_denied) next = "; ports below 1024 are for root: try --port";
    if (error.value() == EADDRNOTAVAIL) next = "; --host is no address of this machine";
    return fail(fmt::format("can't {} on {} port {}: {}{}", what, options_.host, options_.port,
                            error.message(), next),
                ErrorKind::kResource);
  };
  if (acceptor_.open(endpoint.protocol(), error)) return failed("open a socket");
  if (acceptor_.set_option(tcp::acceptor::reuse_address(true), error)) return failed("listen");
  if (acceptor_.bind(endpoint, error)) return failed("listen");
  if (acceptor_.listen(net::socket_base::max_listen_connections, error)) return failed("listen");
  port_ = acceptor_.local_endpoint(error).port();
  net::co_spawn(io_, accept_all(), net::detached);
  text_guard_.emplace(text_work_.get_executor());
  for (size_t i = 0; i < options_.num_text_threads; ++i) {
    text_threads_.emplace_back([this] { run_all(text_work_); });
  }
  thread_ = std::thread([this] { run_all(io_); });
  return {};
}

// An error here is about one connection, or about a lack of descriptors or memory: wait a moment,
// go on. Without memory even for a timer, the moment is slept.
net::awaitable<void> TcpServer::accept_all() {
  net::steady_timer pause(io_);
  while (acceptor_.is_open()) {
    bool is_out_of_memory = false;
    try {
      if (co_await accept_one() || !acceptor_.is_open()) continue;
      error_code ignored;
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(net::redirect_error(net::use_awaitable, ignored));
    } catch (const std::exception&) {
      is_out_of_memory = true;
    }
    if (is_out_of_memory) std::this_thread::sleep_for(kAcceptPause);
  }
}

net::awaitable<bool> TcpServer::accept_one() {
  error_code error;
  tcp::socket socket =
      co_await acceptor_.async_accept(net::redirect_error(net::use_awaitable, error));
  if (!error) open_connection(std::move(socket));
  co_return !error;
}

void TcpServer::open_connection(tcp::socket socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.non_blocking(true, ignored);
  if (connections_.size() >= options_.max_connections) {
    const Reply reply = error_reply(503, "Too many connections.", "too_many_connections");
    socket.write_some(net::buffer(response_text(reply, false)), ignored);
    return;
  }
  net::co_spawn(io_, run_connection(std::make_shared<Connection>(std::move(socket), context_)),
                net::detached);
}

// However the connection ends, by its own will, by an exception or with its coroutine thrown away,
// its socket is closed and it is forgotten.
net::awaitable<void> TcpServer::run_connection(std::shared_ptr<Connection> connection) {
  struct Farewell {
    ~Farewell() {
      connection->close();
      server.connections_.erase(connection);
    }
    TcpServer& server;
    const std::shared_ptr<Connection>& connection;
  };
  const Farewell farewell{*this, connection};
  connections_.insert(connection);
  try {
    co_await connection->run();
  } catch (const std::exception&) {
    co_return;
  }
}

bool TcpServer::wait_until_quiet(std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (num_open_answers() > 0) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// The connections end by themselves once their sockets are closed, and the thread once nothing is
// left; so no wake-up can reach a loop that is gone.
void TcpServer::stop() {
  if (!thread_.joinable()) return;
  net::post(io_, [this] {
    error_code ignored;
    acceptor_.close(ignored);
    for (const auto& connection : connections_) connection->close();
  });
  thread_.join();
  text_guard_.reset();
  for (std::thread& thread : text_threads_) thread.join();
  connections_.clear();
}

}  // namespace

Status check_listen_host(const std::string& host) {
  error_code error;
  address_of(host, error);
  if (error) return fail(fmt::format("--host {}: must be an IP address or localhost", host));
  return {};
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpHandler& handler,
                                                      HttpServerOptions options) {
  auto server = std::make_unique<TcpServer>(handler, std::move(options));
  HS_RETURN_IF_ERROR(server->listen());
  return server;
}

}  // namespace hotset
