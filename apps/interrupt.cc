// SPDX-License-Identifier: Apache-2.0
#include "interrupt.h"

namespace hotset {
namespace {

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t interrupted = 0;

void note_interrupt(int) {
  interrupted = 1;
}

}  // namespace

Interrupts::Interrupts() {
  struct sigaction action {};
  action.sa_handler = note_interrupt;  // without SA_RESTART: a blocking read ends
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previous_);
}

Interrupts::~Interrupts() {
  sigaction(SIGINT, &previous_, nullptr);
}

bool Interrupts::take() {
  const bool was_interrupted = interrupted != 0;
  interrupted = 0;
  return was_interrupted;
}

}  // namespace hotset
