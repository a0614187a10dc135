// SPDX-License-Identifier: Apache-2.0
#include "support/http_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace hotset::test {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

void parse_head(const std::string& head, HttpAnswer& answer) {
  answer.status = std::atoi(head.c_str() + std::min<size_t>(head.size(), 9));
  size_t line = head.find("\r\n");
  while (line != std::string::npos && line + 2 < head.size()) {
    const size_t end = head.find("\r\n", line + 2);
    const std::string field = head.substr(line + 2, end - line - 2);
    const size_t colon = field.find(": ");
    if (colon != std::string::npos) {
      answer.headers[lower_case(field.substr(0, colon))] = field.substr(colon + 2);
    }
    line = end;
  }
}

}  // namespace

HttpClient::HttpClient(uint16_t port) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) close();
}

HttpClient::~HttpClient() {
  close();
}

void HttpClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void HttpClient::shutdown_sending() {
  ::shutdown(fd_, SHUT_WR);
}

bool HttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool HttpClient::post(std::string_view path, std::string_view body,
                      std::string_view extra_headers) {
  return send(
      fmt::format("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  "Content-Length: {}\r\n{}\r\n{}",
                  path, body.size(), extra_headers, body));
}

bool HttpClient::get(std::string_view path) {
  return send(fmt::format("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path));
}

bool HttpClient::read_more(double deadline_s) {
  const double left_s = deadline_s - now_s();
  if (left_s <= 0 || fd_ < 0) return false;
  pollfd poll_entry{fd_, POLLIN, 0};
  if (::poll(&poll_entry, 1, static_cast<int>(left_s * 1000) + 1) <= 0) return false;
  char buffer[16384];
  const ssize_t count = ::recv(fd_, buffer, sizeof(buffer), 0);
  if (count <= 0) return false;
  received_.append(buffer, static_cast<size_t>(count));
  return true;
}

HttpAnswer HttpClient::read_answer(double timeout_s) {
  const double deadline_s = now_s() + timeout_s;
  HttpAnswer answer;
  size_t head_end;
  while ((head_end = received_.find("\r\n\r\n")) == std::string::npos) {
    if (!read_more(deadline_s)) return answer;
  }
  parse_head(received_.substr(0, head_end + 2), answer);
  received_.erase(0, head_end + 4);
  if (answer.headers.count("content-length") != 0) {
    const size_t length = std::stoul(answer.headers["content-length"]);
    while (received_.size() < length && read_more(deadline_s)) {
    }
    answer.body_is_complete = received_.size() >= length;
    answer.body = received_.substr(0, length);
    received_.erase(0, std::min(length, received_.size()));
    return answer;
  }
  while (true) {  // chunks, or everything until the end of the connection
    if (answer.headers.count("transfer-encoding") == 0) {
      while (read_more(deadline_s)) {
      }
      answer.body.swap(received_);
      answer.body_is_complete = true;
      return answer;
    }
    const size_t line_end = received_.find("\r\n");
    if (line_end != std::string::npos) {
      const size_t length = std::strtoul(received_.c_str(), nullptr, 16);
      if (received_.size() >= line_end + 2 + length + 2) {
        answer.body.append(received_, line_end + 2, length);
        received_.erase(0, line_end + 2 + length + 2);
        if (length > 0) continue;
        answer.body_is_complete = true;
        return answer;
      }
    }
    if (!read_more(deadline_s)) return answer;
  }
}

bool HttpClient::read_until(std::string_view text, double timeout_s) {
  const double deadline_s = now_s() + timeout_s;
  while (received_.find(text) == std::string::npos) {
    if (!read_more(deadline_s)) return false;
  }
  return true;
}

bool HttpClient::is_closed_within(double timeout_s) {
  const double deadline_s = now_s() + timeout_s;
  while (read_more(deadline_s)) {
  }
  return now_s() < deadline_s;
}

HttpAnswer http_get(uint16_t port, std::string_view path) {
  HttpClient client(port);
  client.get(path);
  return client.read_answer();
}

HttpAnswer http_post(uint16_t port, std::string_view path, std::string_view body) {
  HttpClient client(port);
  client.post(path, body);
  return client.read_answer();
}

std::vector<std::string> sse_data(std::string_view body) {
  std::vector<std::string> out;
  size_t at = 0;
  while (at < body.size()) {
    const size_t end = std::min(body.find("\n\n", at), body.size());
    const std::string_view event = body.substr(at, end - at);
    if (event.starts_with("data: ")) out.emplace_back(event.substr(6));
    at = end + 2;
  }
  return out;
}

}  // namespace hotset::test
