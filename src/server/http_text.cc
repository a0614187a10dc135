// SPDX-License-Identifier: Apache-2.0
#include "server/http_text.h"

#include <fmt/format.h>

namespace hotset {
namespace {

// No sniffing and no caching: answers are for the one who asked.
constexpr std::string_view kCommonHeaders =
    "Server: hotset\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Cache-Control: no-store\r\n";

std::string_view connection_header(bool keep_alive) {
  return keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
}

}  // namespace

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    default:
      return "Status";
  }
}

std::string response_text(const Reply& reply, bool keep_alive) {
  std::string out =
      fmt::format("HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
                  reply.status, reason_phrase(reply.status), reply.body.size());
  out.append(kCommonHeaders).append(connection_header(keep_alive));
  for (const auto& [name, value] : reply.headers) out += fmt::format("{}: {}\r\n", name, value);
  return out.append("\r\n").append(reply.body);
}

std::string stream_head_text(bool keep_alive, bool chunked) {
  std::string out = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";
  if (chunked) out += "Transfer-Encoding: chunked\r\n";
  out.append(kCommonHeaders).append(connection_header(keep_alive && chunked));
  return out.append("X-Accel-Buffering: no\r\n\r\n");  // proxies: pass every piece on
}

std::string chunk_text(std::string_view bytes) {
  return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

}  // namespace hotset
