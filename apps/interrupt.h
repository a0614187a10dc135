// SPDX-License-Identifier: Apache-2.0
// Ctrl-C as something one can ask about and wait for. While an Interrupts object lives (one at a
// time), SIGINT does not end the program: it makes a pipe readable, whichever thread the signal
// came to and whatever that thread was about to do, so that none is lost.
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
  // Readable from a Ctrl-C until take().
  [[nodiscard]] int fd() const { return read_fd_; }

 private:
  int read_fd_ = -1;
  struct sigaction previous_ {};
};

}  // namespace hotset
