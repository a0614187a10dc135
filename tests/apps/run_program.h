// SPDX-License-Identifier: Apache-2.0
// Runs a program with arguments and standard input, and gathers what it says.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace hotset::test {

struct ProgramResult {
  int exit_code = -1;  // 128 + n when a signal ended it
  std::string out, err;
  double cpu_s = 0;         // user and system
  int64_t max_rss_kib = 0;  // the most that was resident at a time
};

// The environment is empty but for `environment` ("NAME=value") and PATH.
[[nodiscard]] ProgramResult run_program(const std::vector<std::string>& args,
                                        const std::string& input = {},
                                        const std::vector<std::string>& environment = {});

// The binary under test, or another one, in the background; its standard error goes to a file.
class BackgroundProgram {
 public:
  explicit BackgroundProgram(const std::vector<std::string>& args,
                             const std::string& binary = HOTSET_BINARY);
  ~BackgroundProgram();
  BackgroundProgram(const BackgroundProgram&) = delete;
  BackgroundProgram& operator=(const BackgroundProgram&) = delete;

  [[nodiscard]] std::string read_errors() const;
  // The port that `serve` has told of; 0: it has not within a minute.
  [[nodiscard]] uint16_t wait_for_port() const;
  void send_signal(int signal) const;
  // Its exit code, or -1 when it has not ended in time.
  [[nodiscard]] int wait_for_exit(double timeout_s);

 private:
  pid_t pid_ = -1;
  std::string error_file_;
};

}  // namespace hotset::test
