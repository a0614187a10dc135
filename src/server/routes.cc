// SPDX-License-Identifier: Apache-2.0
#include "server/routes.h"

#include <fmt/format.h>

#include <optional>

namespace hotset {
namespace {

constexpr Route kRoutes[] = {
    {"GET", "/health", Endpoint::kHealth, true, false, false},
    {"GET", "/v1/health", Endpoint::kHealth, true, false, false},
    {"GET", "/version", Endpoint::kVersion, false, false, false},
    {"GET", "/v1/models", Endpoint::kModels},
    {"GET", "/models", Endpoint::kModels},
    {"GET", "/v1/models/", Endpoint::kModel, false, true},
    {"POST", "/v1/chat/completions", Endpoint::kChatCompletions},
    {"POST", "/chat/completions", Endpoint::kChatCompletions},
    {"POST", "/v1/completions", Endpoint::kCompletions},
    {"POST", "/completions", Endpoint::kCompletions},
    {"POST", "/tokenize", Endpoint::kTokenize},
    {"POST", "/detokenize", Endpoint::kDetokenize},
};

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Names are keys of a table and never paths, so any byte may come out of this.
std::string percent_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 &&
        hex_digit(text[i + 2]) >= 0) {
      out += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

bool path_matches(const Route& route, std::string_view path) {
  if (!route.takes_suffix) return path == route.path;
  return path.starts_with(route.path) && path.size() > route.path.size();
}

}  // namespace

std::span<const Route> routes() {
  return kRoutes;
}

ApiResult<RouteMatch> match_route(std::string_view method, std::string_view target) {
  const std::string_view path = target.substr(0, target.find('?'));
  std::optional<std::string_view> allowed;
  for (const Route& route : kRoutes) {
    if (!path_matches(route, path)) continue;
    if (route.method == method) {
      return RouteMatch{&route, percent_decode(path.substr(route.path.size()))};
    }
    allowed = route.method;
  }
  if (allowed) {
    return refuse({405, fmt::format("This path takes {} only.", *allowed), "", "method_not_allowed",
                   0, std::string(*allowed)});
  }
  return refuse({404, "There is nothing at this path.", "", "unknown_url", 0});
}

}  // namespace hotset
