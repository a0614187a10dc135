// SPDX-License-Identifier: Apache-2.0
// One client's connection: reads a request, has it answered, writes the answer, repeats. Everything
// runs on the server's one network thread, except HttpHandler::handle(), which is lent a text
// thread.
//
// While an answer is under way the socket is also read: that is how a client that leaves is noticed
// at once, and where pipelined requests wait (at most kMaxPipelinedBytes). A client that closes its
// sending half counts as gone, as with other servers.
//
// What is thrown here, by an allocation as a rule, ends this connection and nothing else.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "server/http_server.h"

namespace hotset {

struct ServerContext {
  HttpHandler& handler;
  const HttpServerOptions& options;
  boost::asio::io_context& text_work;  // run by the text threads
  std::atomic<int64_t> num_connections{0};
  std::atomic<int64_t> num_open_answers{0};
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  static constexpr size_t kMaxPipelinedBytes = 64 << 10;

  Connection(Socket socket, ServerContext& context);
  ~Connection();

  boost::asio::awaitable<void> run();
  void close();

 private:
  struct Incoming;

  static std::string reply_bytes(const Incoming& incoming, const Reply& reply);
  boost::asio::awaitable<bool> serve_one(bool is_first);
  boost::asio::awaitable<bool> wait_for_request(bool is_first);
  boost::asio::awaitable<bool> read_request(Incoming& incoming);
  boost::asio::awaitable<bool> read_body(Incoming& incoming);
  boost::asio::awaitable<Reply> make_reply(const Incoming& incoming);
  boost::asio::awaitable<Reply> lend_to_text_thread(const Incoming& incoming);
  boost::asio::awaitable<bool> send_answer(const Incoming& incoming, Answer& answer);
  boost::asio::awaitable<bool> pump(const Incoming& incoming, Answer& answer);
  boost::asio::awaitable<bool> write(std::string bytes);
  boost::asio::awaitable<void> refuse_and_linger(std::string reply);
  boost::asio::awaitable<bool> wait_for_wakeup();

  class AnswerInSight;  // sets and unsets answer_

  void watch_for_departure();
  void on_watched_bytes(const boost::system::error_code& error, size_t num_bytes);
  boost::asio::awaitable<void> stop_watching();
  void arm_deadline(std::chrono::milliseconds timeout);
  void disarm_deadline();

  Socket socket_;
  ServerContext& context_;
  boost::asio::steady_timer deadline_;  // closes the socket when it fires
  boost::asio::steady_timer wakeup_;    // cancelled by whoever has news
  boost::beast::flat_buffer buffer_;    // read, not parsed yet
  Answer* answer_ = nullptr;            // under way
  bool is_watching_ = false;
  bool is_gone_ = false;  // the client has closed
};

}  // namespace hotset
