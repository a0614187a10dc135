// SPDX-License-Identifier: Apache-2.0
// The program: parses the command line, runs one verb, returns its exit code.
#include <fmt/format.h>

#include <CLI/Error.hpp>
#include <csignal>
#include <cstdio>
#include <exception>

#include "flags.h"
#include "report_error.h"
#include "verbs.h"

namespace hotset {
namespace {

int explain_parse_error(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help and --version
  std::string verb;
  for (const CLI::App* sub : app.get_subcommands()) verb = " " + sub->get_name();
  std::string what = error.what();
  // CLI11 takes an unknown verb for a missing one.
  if (const auto extras = app.remaining(); verb.empty() && !extras.empty()) {
    what = fmt::format("'{}' is not a verb of hotset", extras.front());
  } else if (verb.empty()) {
    what = "a verb is missing: chat, complete, serve or inspect";
  }
  fmt::print(stderr, "hotset: error: {}; see hotset{} --help\n", what, verb);
  return kExitBadInput;
}

int run(int argc, char** argv) {
  CommandLine command;
  const auto parser = make_parser(command);
  try {
    parser->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return explain_parse_error(*parser, error);
  }
  if (parser->got_subcommand("chat")) return run_chat(command.chat);
  if (parser->got_subcommand("complete")) return run_complete(command.complete);
  if (parser->got_subcommand("inspect")) return run_inspect(command.inspect);
  if (parser->got_subcommand("plan")) return run_plan(command.plan);
  if (parser->got_subcommand("profile")) return run_profile(command.profile);
  if (parser->got_subcommand("serve")) return run_serve(command.serve);
  if (parser->got_subcommand("bench")) return run_bench(command.bench);
  if (parser->got_subcommand("synth")) return run_synth(command.synth);
  return run_version();
}

}  // namespace
}  // namespace hotset

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a reader that leaves is an error of write(), not our end
  try {
    return hotset::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "hotset: error: {}\n", error.what());
    return hotset::kExitFailed;
  }
}
