// SPDX-License-Identifier: Apache-2.0
#include "interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/check.h"

namespace hotset {
namespace {

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t write_fd = -1;

void note_interrupt(int) {
  const int saved = errno;
  const char byte = 0;
  (void)!::write(write_fd, &byte, 1);  // a full pipe says the same
  errno = saved;
}

}  // namespace

Interrupts::Interrupts() {
  int fds[2];
  HS_CHECK(::pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0, "pipe2: {}", errno);
  read_fd_ = fds[0];
  write_fd = fds[1];
  struct sigaction action {};
  action.sa_handler = note_interrupt;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previous_);
}

Interrupts::~Interrupts() {
  sigaction(SIGINT, &previous_, nullptr);
  ::close(read_fd_);
  ::close(write_fd);
  write_fd = -1;
}

bool Interrupts::take() {
  char bytes[64];
  bool was_interrupted = false;
  while (::read(read_fd_, bytes, sizeof(bytes)) > 0) was_interrupted = true;
  return was_interrupted;
}

}  // namespace hotset
