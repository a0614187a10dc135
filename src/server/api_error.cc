// SPDX-License-Identifier: Apache-2.0
#include "server/api_error.h"

namespace hotset {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

}  // namespace

ApiError to_api_error(const Error& error) {
  const bool is_context = error.message.find("maximum context length") != std::string::npos;
  switch (error.kind) {
    case ErrorKind::kInvalidInput:
    case ErrorKind::kUnsupported:
      return {400, error.message, "", is_context ? "context_length_exceeded" : "", 0};
    case ErrorKind::kNotFound:
      return {404, error.message, "", "", 0};
    case ErrorKind::kResource:
      if (error.message.find("shutting down") != std::string::npos) {
        return {503, error.message, "", "shutting_down", 5};
      }
      if (error.message.find("out of memory") != std::string::npos) {
        return {503, error.message, "", "out_of_memory", 1};
      }
      return {429, error.message, "", "queue_full", 1};
    case ErrorKind::kDeviceLost:
      return {500, error.message, "", "device_lost", 0};
    default:
      break;
  }
  const bool is_numerical = error.message.rfind("numerical", 0) == 0;
  return {500, error.message, "", is_numerical ? "numerical" : "internal_error", 0};
}

Json error_json(const ApiError& error) {
  Json body;
  body["message"] = error.message;
  body["type"] = type_of(error.status);
  body["param"] = text_or_null(error.param);
  body["code"] = text_or_null(error.code);
  return Json{{"error", std::move(body)}};
}

}  // namespace hotset
