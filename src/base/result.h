// SPDX-License-Identifier: Apache-2.0
// Errors as values. A bad file, a bad request or a full queue comes back as Result<T>; the message
// names the thing (file, tensor, field, flag) and, where there is one, the next step to take.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace hotset {

enum class ErrorKind {
  kInvalidInput,  // a file, flag or request that can't be accepted as it is
  kNotFound,      // something named does not exist
  kUnsupported,   // well-formed, but outside of what this build can do
  kResource,      // memory, disk, threads: try with less, or later
  kInternal,      // the system refused what should have worked
  kDeviceLost,    // the GPU's context is gone; only a new process gets another
};

struct Error {
  ErrorKind kind = ErrorKind::kInvalidInput;
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// `return fail("config.json: hidden_size is missing");`
inline tl::unexpected<Error> fail(std::string message, ErrorKind kind = ErrorKind::kInvalidInput) {
  return tl::unexpected<Error>(Error{kind, std::move(message)});
}
inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

}  // namespace hotset

// Assigns the value of a Result to `lhs`, or returns its error from the enclosing function.
#define HS_CONCAT_(a, b) a##b
#define HS_CONCAT(a, b) HS_CONCAT_(a, b)
#define HS_ASSIGN_OR_RETURN(lhs, expr) HS_ASSIGN_IMPL_(HS_CONCAT(hs_result_, __LINE__), lhs, expr)
#define HS_ASSIGN_IMPL_(tmp, lhs, expr)                    \
  auto tmp = (expr);                                       \
  if (!tmp) return ::hotset::fail(std::move(tmp).error()); \
  lhs = std::move(tmp).value()
#define HS_RETURN_IF_ERROR(expr) \
  if (auto hs_status_ = (expr); !hs_status_) return ::hotset::fail(std::move(hs_status_).error())
