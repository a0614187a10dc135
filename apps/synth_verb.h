// SPDX-License-Identifier: Apache-2.0
// hotset synth: the flags of the verb, and the verb.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace hotset {

struct SynthFlags {
  std::string like = "Qwen/Qwen3-Next-80B-A3B-Instruct";
  std::string format = "gptq";
  std::string routing = "uniform";
  std::string directory;
  std::string tokenizer;
  std::optional<int64_t> layers = {};  // absent: all of the model's
  uint64_t seed = 1;
  std::optional<bool> check_routing = {};  // absent: where it was asked for a routing
  bool quiet = false;
};

// Adds the flags to the sub-command `verb`; `flags` is filled when it is parsed.
void add_synth_flags(CLI::App& verb, SynthFlags& flags);

int run_synth(const SynthFlags& flags);  // the exit code, as verbs.h has it

}  // namespace hotset
