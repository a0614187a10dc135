// SPDX-License-Identifier: Apache-2.0
#include "server/http_server.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <set>
#include <thread>
#include <utility>

#include "server/connection.h"
#include "server/http_text.h"

namespace hotset {
namespace {

namespace net = boost::asio;
using boost::system::error_code;
using net::ip::tcp;

net::ip::address address_of(const std::string& host, error_code& error) {
  return net::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
}

class TcpServer : public HttpServer {
 public:
  TcpServer(HttpHandler& handler, HttpServerOptions options)
      : options_(std::move(options)),
        text_threads_(options_.num_text_threads),
        context_{handler, options_, text_threads_},
        acceptor_(io_) {}

  ~TcpServer() override { stop(); }

  Status listen();
  uint16_t port() const override { return port_; }
  int64_t num_open_answers() const override { return context_.num_open_answers; }
  int64_t num_connections() const override { return context_.num_connections; }
  bool wait_until_quiet(std::chrono::milliseconds patience) override;
  void stop() override;

 private:
  net::awaitable<void> accept_all();
  void open_connection(tcp::socket socket);

  HttpServerOptions options_;
  net::io_context io_{1};
  net::thread_pool text_threads_;
  ServerContext context_;
  tcp::acceptor acceptor_;
  uint16_t port_ = 0;
  std::set<std::shared_ptr<Connection>> connections_;  // network thread only
  std::thread thread_;
};

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
  thread_ = std::thread([this] { io_.run(); });
  return {};
}

// An error here is about one connection or about a lack of descriptors: wait a moment, go on.
net::awaitable<void> TcpServer::accept_all() {
  net::steady_timer pause(io_);
  while (acceptor_.is_open()) {
    error_code error;
    tcp::socket socket =
        co_await acceptor_.async_accept(net::redirect_error(net::use_awaitable, error));
    if (!error) {
      open_connection(std::move(socket));
      continue;
    }
    if (error == net::error::operation_aborted) break;
    pause.expires_after(std::chrono::milliseconds(50));
    co_await pause.async_wait(net::redirect_error(net::use_awaitable, error));
  }
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
  auto connection = std::make_shared<Connection>(std::move(socket), context_);
  connections_.insert(connection);
  net::co_spawn(io_, connection->run(),
                [this, connection](const std::exception_ptr&) { connections_.erase(connection); });
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
  text_threads_.join();
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
