// SPDX-License-Identifier: Apache-2.0
// An answer in the making, as the HTTP side sees it: something that has bytes now and then. The
// connection asks for what is there, sends it, and waits for the next wake-up.
#pragma once

#include <functional>
#include <string>

namespace hotset {

struct AnswerBytes {
  std::string bytes;  // streams: to be sent now; else the whole body, when is_done
  bool is_done = false;
  int status = 200;  // of a non-stream answer, when is_done
};

// One thread at a time, save that the wake-up comes from the engine's thread. Destroying an answer
// before it is done cancels it.
class Answer {
 public:
  virtual ~Answer() = default;
  // True: a stream of server-sent events; false: one JSON body at the end.
  [[nodiscard]] virtual bool is_stream() const = 0;
  virtual void set_wakeup(std::function<void()> wakeup) = 0;
  // What became ready since the last call; never waits.
  [[nodiscard]] virtual AnswerBytes advance() = 0;
  virtual void cancel() = 0;
};

}  // namespace hotset
