// SPDX-License-Identifier: Apache-2.0
// HS_CHECK: broken assumptions of ours (never bad input) end the process with names and shapes.
#pragma once

#include <fmt/format.h>

#include <string>

namespace hotset {

// Prints "file:line: check failed: condition: message" and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);

}  // namespace hotset

#define HS_CHECK(condition, ...)                                                          \
  do {                                                                                    \
    if (!(condition)) [[unlikely]]                                                        \
      ::hotset::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
