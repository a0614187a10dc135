// SPDX-License-Identifier: Apache-2.0
// Python's string operations on marked text, shared by filters and methods. All are linear in the
// length of their input and output and charge the budget for it.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "chat/jinja/value.h"

namespace hotset::jinja {

enum class Side : uint8_t { kBoth, kLeft, kRight };
enum class Case : uint8_t { kLower, kUpper, kCapitalized, kTitle };

// Without `chars`, white space.
[[nodiscard]] Text strip(const Text& text, const std::optional<Text>& chars, Side side,
                         Budget& budget);
// Up to max_splits cuts (negative: all), from the left or from the right. Without a separator the
// pieces are what white space separates.
[[nodiscard]] Result<std::vector<Value>> split(const Text& text,
                                               const std::optional<Text>& separator,
                                               int64_t max_splits, bool from_right, Budget& budget);
[[nodiscard]] std::vector<Value> split_lines(const Text& text, bool keep_ends, Budget& budget);
[[nodiscard]] Text replace(const Text& text, const Text& from, const Text& to, int64_t max_count,
                           Budget& budget);
[[nodiscard]] Text change_case(const Text& text, Case to, Budget& budget);
[[nodiscard]] Text reversed(const Text& text, Budget& budget);
[[nodiscard]] Text repeated(const Text& text, Int times, Budget& budget);
[[nodiscard]] Result<Text> joined(const std::vector<Value>& items, const Text& separator,
                                  Budget& budget);
// format % value: %s %r %d %i %x %f %g %%, with width, precision and flags.
[[nodiscard]] Result<Text> percent_format(const Text& format, const std::vector<Value>& values,
                                          Budget& budget);

}  // namespace hotset::jinja
