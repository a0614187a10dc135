// SPDX-License-Identifier: Apache-2.0
// A raw HTTP/1.1 client for tests: sends exactly the bytes it is given, and reads one answer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hotset::test {

struct HttpAnswer {
  int status = 0;                              // 0: the connection ended without an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
  bool body_is_complete = false;
};

class HttpClient {
 public:
  explicit HttpClient(uint16_t port);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  [[nodiscard]] bool is_connected() const { return fd_ >= 0; }
  bool send(std::string_view bytes);
  // A POST with the usual headers.
  bool post(std::string_view path, std::string_view body, std::string_view extra_headers = {});
  bool get(std::string_view path);

  // Reads one answer; gives up after `timeout_s` (status 0 or an incomplete body).
  [[nodiscard]] HttpAnswer read_answer(double timeout_s = 10);
  // Reads until `text` has been seen or time is up.
  [[nodiscard]] bool read_until(std::string_view text, double timeout_s = 10);
  // True when the server has closed the connection within `timeout_s`.
  [[nodiscard]] bool is_closed_within(double timeout_s);
  void close();
  void shutdown_sending();
  [[nodiscard]] int fd() const { return fd_; }

 private:
  bool read_more(double deadline_s);

  int fd_ = -1;
  std::string received_;
};

[[nodiscard]] HttpAnswer http_get(uint16_t port, std::string_view path);
[[nodiscard]] HttpAnswer http_post(uint16_t port, std::string_view path, std::string_view body);

// The data of every server-sent event, "[DONE]" included; comments are left out.
[[nodiscard]] std::vector<std::string> sse_data(std::string_view body);

}  // namespace hotset::test
