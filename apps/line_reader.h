// SPDX-License-Identifier: Apache-2.0
// Lines from standard input, by plain reads: std::getline can't tell a Ctrl-C from the end.
#pragma once

#include <string>

namespace hotset {

class LineReader {
 public:
  enum class Outcome { kLine, kEnd, kInterrupted };
  // Reading stops with kInterrupted while `interrupt_fd` is readable.
  explicit LineReader(int interrupt_fd) : interrupt_fd_(interrupt_fd) {}
  // `line` without its newline. A last line without newline counts as one.
  [[nodiscard]] Outcome read(std::string& line);

 private:
  int interrupt_fd_;
  std::string pending_;
  bool at_end_ = false;
};

// Everything up to the end of standard input.
[[nodiscard]] std::string read_all_input();

}  // namespace hotset
