// SPDX-License-Identifier: Apache-2.0
// The one table of what a request may contain. The validator, the JSON reader, the command line and
// the tests that generate bad requests all read it, so a limit is changed here and nowhere else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace hotset {

// A field that is one number: min ≤ value ≤ max, or min < value ≤ max.
struct NumberLimit {
  std::string_view field;
  double min;
  double max;
  bool is_integer;
  bool min_is_excluded = false;
};

// A field that is a list (or an object): at most max_items entries.
struct CountLimit {
  std::string_view field;
  size_t max_items;
};

[[nodiscard]] std::span<const NumberLimit> number_limits();
[[nodiscard]] std::span<const CountLimit> count_limits();

// REQUIRES: the field is in the table (a misspelled name is our mistake and ends the process).
[[nodiscard]] const NumberLimit& number_limit(std::string_view field);
[[nodiscard]] size_t count_limit(std::string_view field);

inline constexpr size_t kMaxStopBytes = 1024;         // one stop string
inline constexpr double kMaxLogitBias = 100;          // |bias|
inline constexpr size_t kMaxSchemaBytes = 256 << 10;  // one tool, as JSON text
inline constexpr size_t kMaxNameBytes = 256;          // a tool's name, a role, a model's name

}  // namespace hotset
