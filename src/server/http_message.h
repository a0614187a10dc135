// SPDX-License-Identifier: Apache-2.0
// Requests and replies as plain structs: what the API needs to know of HTTP, and no more.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/answer.h"

namespace hotset {

// Header fields that matter to the API; empty: absent.
struct HttpHead {
  std::string method;
  std::string target;  // as sent, with the query
  std::string host;
  std::string content_type;
  std::string authorization;
  std::string x_api_key;
  bool has_one_host = true;  // false: none or an empty one (in HTTP/1.1), or several
};

struct Reply {
  int status = 200;
  std::string body;  // JSON
  std::vector<std::pair<std::string, std::string>> headers;
  std::unique_ptr<Answer> answer;  // set: the body is still to come from there
};

// An error body as the API shapes it, for what goes wrong below the API.
[[nodiscard]] Reply error_reply(int status, std::string message, std::string code);

// What the transport calls; thread-safe.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Everything that can be said before the body is read; nothing when the request may go on.
  [[nodiscard]] virtual std::optional<Reply> check_head(const HttpHead& head) const = 0;
  // REQUIRES: check_head() had no objection. May take long.
  [[nodiscard]] virtual Reply handle(const HttpHead& head, std::string_view body) = 0;
};

}  // namespace hotset
