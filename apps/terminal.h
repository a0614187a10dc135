// SPDX-License-Identifier: Apache-2.0
// How things look: colours where they are wanted, sizes a human reads, tables that line up.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hotset {

[[nodiscard]] bool stdin_is_terminal();
[[nodiscard]] bool stdout_is_terminal();
[[nodiscard]] bool stderr_is_terminal();

// Escape sequences; empty strings when standard output is no terminal or NO_COLOR is set.
struct Style {
  std::string_view bold, dim, cyan, reset;
};
[[nodiscard]] Style stdout_style();

[[nodiscard]] std::string format_bytes(int64_t bytes);  // "1.50 GiB"
[[nodiscard]] std::string format_count(int64_t count);  // "79.67 B", "151,936"
[[nodiscard]] std::string format_with_commas(int64_t number);

// Columns as wide as their widest cell; those listed in `right_aligned` flush right.
class Table {
 public:
  explicit Table(std::vector<std::string> header, std::vector<bool> right_aligned);
  void add_row(std::vector<std::string> cells);
  [[nodiscard]] std::string to_string(const Style& style) const;

 private:
  std::vector<std::vector<std::string>> rows_;  // the header first
  std::vector<bool> right_aligned_;
};

}  // namespace hotset
