// SPDX-License-Identifier: Apache-2.0
// Errors as the OpenAI API shapes them: {"error":{"message","type","param","code"}} and a status.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "base/result.h"
#include "server/strict_json.h"

namespace hotset {

struct ApiError {
  int status = 400;
  std::string message;
  std::string param;  // the field at fault; empty: null on the wire
  std::string code;   // machine-readable; empty: null on the wire
  int retry_after_s = 0;
  std::string allow = {};  // of 405: the method that the path takes
};

template <typename T>
using ApiResult = tl::expected<T, ApiError>;

inline tl::unexpected<ApiError> refuse(ApiError error) {
  return tl::unexpected<ApiError>(std::move(error));
}
// 400 that names a field.
inline tl::unexpected<ApiError> refuse_field(std::string param, std::string message) {
  return refuse({400, std::move(message), std::move(param), "invalid_value", 0});
}

// What an engine or template error means on the wire: bad input is 400, a full queue 429, …
[[nodiscard]] ApiError to_api_error(const Error& error);

[[nodiscard]] Json error_json(const ApiError& error);

}  // namespace hotset
