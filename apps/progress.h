// SPDX-License-Identifier: Apache-2.0
// Loading or writing, told on standard error: one bar that redraws itself on a terminal, else a
// line for every five percent.
#pragma once

#include <cstdint>
#include <string>

namespace hotset {

// "[#####-----]  50 %  22.40 / 44.80 GiB  3.10 GiB/s  ETA 7 s"; small models count in MiB.
[[nodiscard]] std::string progress_line(int64_t done_bytes, int64_t total_bytes, double seconds,
                                        bool with_bar);

class LoadProgressPrinter {
 public:
  // `verb`: what is done, "loading".
  explicit LoadProgressPrinter(bool quiet, std::string verb = "loading");
  ~LoadProgressPrinter();
  LoadProgressPrinter(const LoadProgressPrinter&) = delete;
  LoadProgressPrinter& operator=(const LoadProgressPrinter&) = delete;

  void update(int64_t done_bytes, int64_t total_bytes, double seconds);

 private:
  bool quiet_;
  std::string verb_;
  bool is_terminal_;
  bool bar_is_drawn_ = false;
  int64_t last_step_ = -1;  // of five percent each
};

}  // namespace hotset
