// SPDX-License-Identifier: Apache-2.0
#include "progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "terminal.h"

namespace hotset {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
constexpr double kGiB = 1024.0 * kMiB;
constexpr int kBarWidth = 30;

}  // namespace

std::string progress_line(int64_t done_bytes, int64_t total_bytes, double seconds, bool with_bar) {
  const auto done = static_cast<double>(done_bytes);
  const auto total = static_cast<double>(std::max<int64_t>(total_bytes, 1));
  const double share = std::clamp(done / total, 0.0, 1.0);
  const double bytes_per_s = seconds > 0 ? done / seconds : 0;
  std::string line;
  if (with_bar) {
    const int filled = static_cast<int>(share * kBarWidth);
    line = fmt::format("[{:#>{}}{:->{}}] ", "", filled, "", kBarWidth - filled);
  }
  const bool is_small = total < kGiB;
  const double unit = is_small ? kMiB : kGiB;
  const char* name = is_small ? "MiB" : "GiB";
  line += fmt::format("{:3.0f} %  {:.{}f} / {:.{}f} {}  {:.2f} GiB/s", share * 100, done / unit,
                      is_small ? 1 : 2, total / unit, is_small ? 1 : 2, name, bytes_per_s / kGiB);
  if (done_bytes < total_bytes && bytes_per_s > 0) {
    line += fmt::format("  ETA {:.0f} s", (total - done) / bytes_per_s);
  }
  return line;
}

LoadProgressPrinter::LoadProgressPrinter(bool quiet, std::string verb)
    : quiet_(quiet), verb_(std::move(verb)), is_terminal_(stderr_is_terminal()) {}

LoadProgressPrinter::~LoadProgressPrinter() {
  if (bar_is_drawn_) std::fputs("\n", stderr);
}

void LoadProgressPrinter::update(int64_t done_bytes, int64_t total_bytes, double seconds) {
  if (quiet_) return;
  if (is_terminal_) {
    bar_is_drawn_ = true;
    fmt::print(stderr, "\r{} {}\033[K", verb_,
               progress_line(done_bytes, total_bytes, seconds, true));
    std::fflush(stderr);
    return;
  }
  const int64_t step = total_bytes > 0 ? done_bytes * 20 / total_bytes : 20;
  if (step == last_step_) return;
  last_step_ = step;
  fmt::print(stderr, "{} {}\n", verb_, progress_line(done_bytes, total_bytes, seconds, false));
}

}  // namespace hotset
