// SPDX-License-Identifier: Apache-2.0
// The command line: flags → option structs.
#pragma once

#include <CLI/App.hpp>
#include <memory>

#include "options.h"
#include "synth_verb.h"

namespace hotset {

struct CommandLine {
  CompleteOptions complete;
  ChatOptions chat;
  InspectOptions inspect;
  PlanOptions plan;
  ProfileOptions profile;
  ServeOptions serve;
  BenchOptions bench;
  SynthFlags synth;
};

// The parser writes into `out`, which must outlive it.
[[nodiscard]] std::unique_ptr<CLI::App> make_parser(CommandLine& out);

}  // namespace hotset
