// SPDX-License-Identifier: Apache-2.0
#include "server/connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "base/check.h"
#include "server/http_text.h"
#include "server/wire.h"

namespace hotset {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

struct Connection::Incoming {
  http::request_parser<http::string_body> parser;
  HttpHead head;
  std::optional<Reply> refusal;
  bool keep_alive = false;
  bool is_http_1_0 = false;
  bool is_head = false;  // asked like GET, answered without the body
};

namespace {

constexpr std::chrono::milliseconds kLingerTime{1000};
constexpr size_t kBufferBytes = 128 << 10;

class OpenAnswer {
 public:
  explicit OpenAnswer(std::atomic<int64_t>& count) : count_(count) { ++count_; }
  ~OpenAnswer() { --count_; }
  OpenAnswer(const OpenAnswer&) = delete;
  OpenAnswer& operator=(const OpenAnswer&) = delete;

 private:
  std::atomic<int64_t>& count_;
};

auto into(error_code& error) {
  return net::redirect_error(net::use_awaitable, error);
}

std::string field_text(const http::fields& fields, http::field name) {
  const auto value = fields[name];
  return {value.data(), value.size()};
}

HttpHead read_head(const http::request<http::string_body>& message) {
  HttpHead head;
  head.method = std::string(message.method_string());
  head.target = std::string(message.target());
  head.host = field_text(message, http::field::host);
  head.content_type = field_text(message, http::field::content_type);
  head.authorization = field_text(message, http::field::authorization);
  const auto key = message["x-api-key"];
  head.x_api_key = std::string(key.data(), key.size());
  const size_t num_hosts = message.count(http::field::host);
  head.has_one_host =
      (num_hosts == 1 && !head.host.empty()) || (num_hosts == 0 && message.version() == 10);
  return head;
}

// What to say about a request that can't be parsed; nothing when there is nobody to say it to.
std::optional<Reply> parse_refusal(const error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return error_reply(431, "The request's header is too large.", "header_too_large");
  }
  if (error == http::error::body_limit) {
    return error_reply(413, "The request's body is too large.", "body_too_large");
  }
  const bool is_syntax =
      error.category() == http::make_error_code(http::error::bad_method).category();
  if (!is_syntax || error == http::error::end_of_stream || error == http::error::partial_message) {
    return std::nullopt;
  }
  return error_reply(400, "Not a valid HTTP/1.1 request: " + error.message() + ".", "bad_http");
}

}  // namespace

Connection::Connection(Socket socket, ServerContext& context)
    : socket_(std::move(socket)),
      context_(context),
      deadline_(socket_.get_executor()),
      wakeup_(socket_.get_executor()),
      buffer_(kBufferBytes) {
  ++context_.num_connections;
}

Connection::~Connection() {
  --context_.num_connections;
}

void Connection::close() {
  error_code ignored;
  socket_.close(ignored);
  is_gone_ = true;
  if (answer_ != nullptr) answer_->cancel();
  wakeup_.cancel();
}

void Connection::arm_deadline(std::chrono::milliseconds timeout) {
  deadline_.expires_after(timeout);
  deadline_.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (error || self == nullptr) return;
    if (self->deadline_.expiry() <= std::chrono::steady_clock::now()) self->close();
  });
}

void Connection::disarm_deadline() {
  deadline_.expires_at(std::chrono::steady_clock::time_point::max());
}

net::awaitable<void> Connection::run() {
  const auto self = shared_from_this();  // the coroutine keeps its connection
  for (bool is_first = true; co_await serve_one(is_first); is_first = false) {
  }
  disarm_deadline();
  error_code ignored;
  socket_.shutdown(Socket::shutdown_both, ignored);
  socket_.close(ignored);
}

std::string Connection::reply_bytes(const Incoming& incoming, const Reply& reply) {
  std::string out = response_text(reply, incoming.keep_alive);
  if (incoming.is_head) out.resize(out.size() - reply.body.size());
  return out;
}

net::awaitable<bool> Connection::serve_one(bool is_first) {
  if (!co_await wait_for_request(is_first)) co_return false;
  Incoming incoming;
  if (!co_await read_request(incoming)) co_return false;
  if (incoming.refusal && incoming.parser.is_done() && incoming.keep_alive) {
    co_return co_await write(reply_bytes(incoming, *incoming.refusal));
  }
  if (incoming.refusal) {
    incoming.keep_alive = false;
    co_await refuse_and_linger(reply_bytes(incoming, *incoming.refusal));
    co_return false;
  }
  // Counted before the engine hears of it, so that a drain waits for it.
  const OpenAnswer open_answer(context_.num_open_answers);
  Reply reply = co_await make_reply(incoming);
  if (reply.answer != nullptr) co_return co_await send_answer(incoming, *reply.answer);
  const bool sent = co_await write(reply_bytes(incoming, reply));
  co_return sent&& incoming.keep_alive;
}

// Between requests a connection costs its coroutine and an empty buffer.
net::awaitable<bool> Connection::wait_for_request(bool is_first) {
  if (buffer_.size() > 0) co_return true;
  buffer_.shrink_to_fit();
  arm_deadline(is_first ? context_.options.header_timeout : context_.options.idle_timeout);
  error_code error;
  co_await socket_.async_wait(Socket::wait_read, into(error));
  co_return !error;
}

net::awaitable<bool> Connection::read_request(Incoming& incoming) {
  auto& parser = incoming.parser;
  parser.header_limit(static_cast<uint32_t>(context_.options.max_header_bytes));
  parser.body_limit(context_.options.max_body_bytes);
  arm_deadline(context_.options.header_timeout);
  error_code error;
  co_await http::async_read_header(socket_, buffer_, parser, into(error));
  if (error) {
    incoming.refusal = parse_refusal(error);
    co_return incoming.refusal.has_value();
  }
  const auto& message = parser.get();
  incoming.head = read_head(message);
  incoming.is_http_1_0 = message.version() < 11;
  incoming.keep_alive = message.keep_alive();
  incoming.is_head = message.method() == http::verb::head;
  if (incoming.is_head) incoming.head.method = "GET";
  incoming.refusal = context_.handler.check_head(incoming.head);
  if (incoming.refusal || parser.is_done()) co_return true;
  co_return co_await read_body(incoming);
}

net::awaitable<bool> Connection::read_body(Incoming& incoming) {
  auto& parser = incoming.parser;
  if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    if (!co_await write("HTTP/1.1 100 Continue\r\n\r\n")) co_return false;
  }
  const auto end = std::chrono::steady_clock::now() + context_.options.body_timeout;
  while (!parser.is_done()) {
    if (std::chrono::steady_clock::now() > end) co_return false;
    arm_deadline(context_.options.body_gap_timeout);
    error_code error;
    co_await http::async_read_some(socket_, buffer_, parser, into(error));
    if (error) {
      incoming.refusal = parse_refusal(error);
      co_return incoming.refusal.has_value();
    }
  }
  co_return true;
}

// Whatever goes wrong in the handler is this request's answer.
net::awaitable<Reply> Connection::make_reply(const Incoming& incoming) {
  disarm_deadline();
  bool is_out_of_memory = false;
  try {
    co_return co_await lend_to_text_thread(incoming);
  } catch (const std::bad_alloc&) {
    is_out_of_memory = true;
  } catch (const std::exception&) {
    is_out_of_memory = false;
  }
  co_return is_out_of_memory
      ? error_reply(503, "Out of memory; try again later.", "out_of_memory")
      : error_reply(500, "The server could not make an answer.", "internal_error");
}

net::awaitable<Reply> Connection::lend_to_text_thread(const Incoming& incoming) {
  co_return co_await net::co_spawn(
      context_.text_work,
      [this, &incoming]() -> net::awaitable<Reply> {
        co_return context_.handler.handle(incoming.head, incoming.parser.get().body());
      },
      net::use_awaitable);
}

// While it lives, wake-ups reach the connection, and close() reaches the answer.
class Connection::AnswerInSight {
 public:
  AnswerInSight(Connection& connection, Answer& answer) : connection_(connection) {
    answer.set_wakeup(
        [weak = connection.weak_from_this(), executor = connection.socket_.get_executor()] {
          net::post(executor, [weak] {
            if (const auto self = weak.lock()) self->wakeup_.cancel();
          });
        });
    connection_.answer_ = &answer;
  }
  ~AnswerInSight() {
    connection_.answer_->set_wakeup({});
    connection_.answer_ = nullptr;
  }
  AnswerInSight(const AnswerInSight&) = delete;
  AnswerInSight& operator=(const AnswerInSight&) = delete;

 private:
  Connection& connection_;
};

net::awaitable<bool> Connection::send_answer(const Incoming& incoming, Answer& answer) {
  bool sent = false;
  {
    const AnswerInSight in_sight(*this, answer);
    watch_for_departure();
    sent = co_await pump(incoming, answer);
  }
  co_await stop_watching();
  co_return sent&& incoming.keep_alive && !(incoming.is_http_1_0 && answer.is_stream());
}

// Sends what the answer has, then sleeps until it has more. A stream that is silent for long gets
// a comment, so that clients and proxies do not take a long prefill for a dead server.
net::awaitable<bool> Connection::pump(const Incoming& incoming, Answer& answer) {
  const bool is_stream = answer.is_stream();
  const bool chunked = !incoming.is_http_1_0;
  const auto framed = [chunked](std::string bytes) { return chunked ? chunk_text(bytes) : bytes; };
  std::string pending = is_stream ? stream_head_text(incoming.keep_alive, chunked) : std::string();
  while (!is_gone_) {
    AnswerBytes news = answer.advance();
    if (!is_stream && news.is_done) {
      Reply reply;
      reply.status = news.status;
      reply.body = std::move(news.bytes);
      co_return co_await write(response_text(reply, incoming.keep_alive));
    }
    if (is_stream && !news.bytes.empty()) pending += framed(std::move(news.bytes));
    if (news.is_done && chunked) pending += kLastChunk;
    if (!pending.empty()) {
      const bool sent = co_await write(std::exchange(pending, {}));
      if (!sent || news.is_done) co_return sent;
      continue;  // what came meanwhile has spent its wake-up: look again before sleeping
    }
    if (news.is_done) co_return true;
    const bool has_news = co_await wait_for_wakeup();
    if (!has_news && is_stream) pending = framed(std::string(kSsePing));
  }
  co_return false;
}

// True: somebody woke us; false: the ping interval is over.
net::awaitable<bool> Connection::wait_for_wakeup() {
  if (is_gone_) co_return true;
  wakeup_.expires_after(context_.options.ping_interval);
  error_code error;
  co_await wakeup_.async_wait(into(error));
  co_return error == net::error::operation_aborted;
}

net::awaitable<bool> Connection::write(std::string bytes) {
  arm_deadline(context_.options.write_timeout);
  error_code error;
  co_await net::async_write(socket_, net::buffer(bytes), into(error));
  disarm_deadline();
  co_return !error;
}

// The client may still be sending. Closing now would make its system throw our answer away, so what
// comes is read and dropped for a moment.
net::awaitable<void> Connection::refuse_and_linger(std::string reply) {
  if (!co_await write(std::move(reply))) co_return;
  error_code error;
  socket_.shutdown(Socket::shutdown_send, error);
  arm_deadline(kLingerTime);
  std::string sink(16 << 10, '\0');
  while (!error) co_await socket_.async_read_some(net::buffer(sink), into(error));
}

void Connection::watch_for_departure() {
  if (buffer_.size() >= kMaxPipelinedBytes) return;
  socket_.async_read_some(buffer_.prepare(4096),
                          [self = shared_from_this()](const error_code& error, size_t num_bytes) {
                            self->on_watched_bytes(error, num_bytes);
                          });
  is_watching_ = true;
}

void Connection::on_watched_bytes(const error_code& error, size_t num_bytes) {
  is_watching_ = false;
  buffer_.commit(num_bytes);
  if (answer_ == nullptr) {
    wakeup_.cancel();  // stop_watching() waits for this
    return;
  }
  if (error) return close();
  try {
    watch_for_departure();
  } catch (const std::bad_alloc&) {
    close();
  }
}

net::awaitable<void> Connection::stop_watching() {
  error_code ignored;
  if (is_watching_) socket_.cancel(ignored);
  while (is_watching_) {
    wakeup_.expires_at(std::chrono::steady_clock::time_point::max());
    co_await wakeup_.async_wait(into(ignored));
  }
}

}  // namespace hotset
