// SPDX-License-Identifier: Apache-2.0
// The route table. What is not in it does not exist; what is in it needs the key unless its row
// says otherwise.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "server/api_error.h"

namespace hotset {

enum class Endpoint {
  kHealth,
  kVersion,
  kModels,
  kModel,  // the name follows the path
  kChatCompletions,
  kCompletions,
  kTokenize,
  kDetokenize,
};

struct Route {
  std::string_view method;
  std::string_view path;
  Endpoint endpoint;
  bool is_public = false;     // no key asked for
  bool takes_suffix = false;  // matches path + one more segment
  bool needs_model = true;    // 503 while loading
};

[[nodiscard]] std::span<const Route> routes();

struct RouteMatch {
  const Route* route = nullptr;
  std::string suffix;  // percent-decoded
};

// 404 for an unknown path, 405 (message names the method to use) for a known one.
[[nodiscard]] ApiResult<RouteMatch> match_route(std::string_view method, std::string_view target);

}  // namespace hotset
