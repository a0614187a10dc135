// SPDX-License-Identifier: Apache-2.0
// Ctrl-C as something one can ask about. While an Interrupts object lives, SIGINT sets a flag and
// interrupts a read of the terminal instead of ending the program.
#pragma once

#include <csignal>

namespace hotset {

class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // True when there was a Ctrl-C since the last call.
  [[nodiscard]] bool take();

 private:
  struct sigaction previous_ {};
};

}  // namespace hotset
