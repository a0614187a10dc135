// SPDX-License-Identifier: Apache-2.0
#include "report_error.h"

#include <fmt/format.h>

#include <cstdio>

#include "verbs.h"

namespace hotset {

int report_error(const Error& error) {
  const bool lost = error.kind == ErrorKind::kDeviceLost;
  fmt::print(stderr, "hotset: error: {}{}\n",
             lost ? "the GPU is lost to this process, which ends: " : "", error.message);
  switch (error.kind) {
    case ErrorKind::kDeviceLost:
      return kExitDeviceLost;
    case ErrorKind::kInvalidInput:
    case ErrorKind::kNotFound:
    case ErrorKind::kUnsupported:
      return kExitBadInput;
    default:
      return kExitFailed;
  }
}

int report_bad_input(std::string_view message) {
  return report_error({ErrorKind::kInvalidInput, std::string(message)});
}

}  // namespace hotset
