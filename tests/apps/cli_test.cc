// SPDX-License-Identifier: Apache-2.0
// The command line without a model: help, versions, and errors that say what to do next.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "apps/run_program.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;
using test::ProgramResult;
using test::run_program;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void expect_bad_input(const ProgramResult& result) {
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_EQ(result.err.rfind("hotset: error: ", 0), 0u) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1)
      << "one line: " << result.err;
  EXPECT_TRUE(result.out.empty()) << result.out;
}

TEST(Cli, HelpIsWorthReading) {
  const ProgramResult all = run_program({"--help"});
  EXPECT_EQ(all.exit_code, 0);
  for (const char* verb : {"chat", "complete", "serve", "inspect", "bench", "version"}) {
    EXPECT_TRUE(has(all.out, verb)) << verb;
    const ProgramResult one = run_program({verb, "--help"});
    EXPECT_EQ(one.exit_code, 0);
    EXPECT_TRUE(one.err.empty());
    if (std::string(verb) != "version") {
      EXPECT_TRUE(has(one.out, "Example")) << verb;
      EXPECT_TRUE(has(one.out, "MODEL")) << verb;
    }
  }
  const std::string synth = run_program({"synth", "--help"}).out;
  EXPECT_TRUE(has(synth, "Example")) << synth;
  EXPECT_FALSE(has(synth, "TEXT")) << synth;
  EXPECT_TRUE(has(run_program({"serve", "--help"}).out, "127.0.0.1"));
  EXPECT_TRUE(has(run_program({"complete", "--help"}).out, "--top-k"));
}

TEST(Cli, VersionNamesTheInstructionSets) {
  const ProgramResult verb = run_program({"version"});
  EXPECT_EQ(verb.exit_code, 0);
  EXPECT_EQ(verb.out.rfind("hotset 0.", 0), 0u);
  EXPECT_TRUE(has(verb.out, "scalar"));
  EXPECT_EQ(run_program({"--version"}).out.rfind("hotset 0.", 0), 0u);
}

TEST(Cli, BadFlagsAreNamed) {
  expect_bad_input(run_program({}));
  expect_bad_input(run_program({"frobnicate"}));
  expect_bad_input(run_program({"chat"}));
  expect_bad_input(run_program({"chat", "m", "--frobnicate"}));
  expect_bad_input(run_program({"serve", "m", "--port", "70000"}));
  expect_bad_input(run_program({"serve", "m", "--port", "many"}));
  expect_bad_input(run_program({"complete", "m", "-p", "x", "--temperature", "hot"}));
  expect_bad_input(run_program({"complete", "m", "-p", "x", "--arithmetic", "roman"}));
  expect_bad_input(run_program({"complete", "m", "-p", "x", "-c", "0"}));
  expect_bad_input(run_program({"complete", "m", "-p", "x", "-c", "12q"}));
  expect_bad_input(run_program({"inspect", "m", "--kv-cache-dtype", "int1"}));
  expect_bad_input(run_program({"synth", "-o", "d", "--check-routing", "--no-check-routing"}));
  EXPECT_TRUE(has(run_program({"chat", "m", "--frobnicate"}).err, "--frobnicate"));
  EXPECT_TRUE(has(run_program({"chat", "m", "--frobnicate"}).err, "hotset chat --help"));
}

TEST(Cli, AnUnknownVerbIsNamed) {
  const ProgramResult result = run_program({"frobnicate", "./model"});
  expect_bad_input(result);
  EXPECT_TRUE(has(result.err, "'frobnicate' is not a verb")) << result.err;
  EXPECT_TRUE(has(result.err, "hotset --help")) << result.err;
}

TEST(Cli, AMissingModelIsExplained) {
  for (const char* verb : {"chat", "complete", "inspect"}) {
    std::vector<std::string> args{verb, "/no/such/model"};
    if (std::string(verb) == "complete") args.insert(args.end(), {"-p", "x"});
    const ProgramResult result = run_program(args);
    expect_bad_input(result);
    EXPECT_TRUE(has(result.err, "/no/such/model")) << result.err;
  }
  const ProgramResult hub =
      run_program({"chat", "some-org/some-model"}, "", {"HF_HOME=/no/such/home"});
  expect_bad_input(hub);
  EXPECT_TRUE(has(hub.err, "some-org/some-model")) << hub.err;
  EXPECT_TRUE(has(hub.err, "download")) << hub.err;
}

TEST(Cli, AnEmptyPromptIsRefusedBeforeLoading) {
  expect_bad_input(run_program({"complete", "/no/such/model"}, ""));
}

TEST(Cli, WhatFlagsAloneSayWrongIsToldBeforeTheModelIsLookedFor) {
  const auto error_of = [](std::vector<std::string> more) {
    std::vector<std::string> args = {"complete", "/no/such/model", "-p", "x"};
    args.insert(args.end(), more.begin(), more.end());
    const ProgramResult result = run_program(args);
    expect_bad_input(result);
    return result.err;
  };
  EXPECT_TRUE(has(error_of({"--temperature", "9"}), "--temperature is 9"));
  EXPECT_TRUE(has(error_of({"-n", "0"}), "--max-tokens is 0"));
  EXPECT_TRUE(has(error_of({"--stop", ""}), "--stop"));
  const ProgramResult text = run_program({"complete", "/no/such/model"}, "a\xff");
  expect_bad_input(text);
  EXPECT_TRUE(has(text.err, "UTF-8 at byte 1")) << text.err;
  const ProgramResult host = run_program({"serve", "/no/such/model", "--host", "foo"});
  expect_bad_input(host);
  EXPECT_TRUE(has(host.err, "--host foo: must be an IP address")) << host.err;
}

TEST(Cli, SynthWritesAsManyLayersAsWereAskedFor) {
  const std::string folder =
      fmt::format("{}/hotset_cli_{}", fs::temp_directory_path().string(), ::getpid());
  for (const char* layers : {"0", "-1", "1001"}) {
    const ProgramResult result =
        run_program({"synth", "--like", "tiny", "--layers", layers, "-o", folder});
    EXPECT_EQ(result.exit_code, 2) << layers;
    EXPECT_TRUE(has(result.err, "must be 1 … 1000")) << result.err;
    EXPECT_FALSE(fs::exists(folder));
  }
  const ProgramResult result =
      run_program({"synth", "--like", "tiny", "--layers", "1", "-o", folder});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(has(result.err, "writing 100 %")) << result.err;
  EXPECT_FALSE(has(result.err, "loading")) << result.err;
  EXPECT_TRUE(has(result.out, "a stand-in tokenizer")) << result.out;
  const ProgramResult text = run_program(
      {"complete", folder, "-p", "Hello", "-n", "8", "--device", "cpu", "--ignore-eos"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_GT(text.out.size(), 8u) << "every token says something";
  fs::remove_all(folder);
}

// A law that was asked for is told as it came out, of the first layers where there are many.
TEST(Cli, SynthShowsTheRoutingThatItProduced) {
  const std::string folder =
      fmt::format("{}/hotset_cli_zipf_{}", fs::temp_directory_path().string(), ::getpid());
  const auto synth = [&](std::vector<std::string> more) {
    fs::remove_all(folder);
    fs::create_directories(folder + "/.git");  // which has no hard links
    std::vector<std::string> args = {"synth",    "--like", "tiny", "--routing", "zipf:1",
                                     "--layers", "6",      "-o",   folder};
    args.insert(args.end(), more.begin(), more.end());
    const ProgramResult result = run_program(args);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    fs::remove_all(folder);
    return result.out;
  };
  const std::string by_default = synth({});
  EXPECT_TRUE(has(by_default, "Routing of 1024 drifting tokens in the first 4 of 6 layers"))
      << by_default;
  EXPECT_TRUE(has(by_default, "| mean |")) << by_default;
  EXPECT_TRUE(has(synth({"--check-routing"}), "Routing of 1024 drifting tokens.\n"));
  EXPECT_FALSE(has(synth({"--no-check-routing"}), "Routing of"));
  EXPECT_FALSE(has(synth({"--quiet"}), "Routing of"));
}

// Neither Ctrl-C nor SIGTERM leaves the first layers' folder behind.
TEST(Cli, SynthThatIsEndedLeavesNoFirstLayers) {
  const fs::path folder =
      fs::temp_directory_path() / fmt::format("hotset_cli_ended_{}", ::getpid());
  for (const int signal : {SIGINT, SIGTERM}) {
    fs::remove_all(folder);
    test::BackgroundProgram program({"synth", "--like", "tiny", "--routing", "zipf:1", "--layers",
                                     "64", "-o", folder.string()});
    const fs::path first = folder / ".first-layers";
    for (int i = 0; i < 20000 && !fs::exists(first); ++i) ::usleep(1000);
    program.send_signal(signal);
    const int exit_code = program.wait_for_exit(20);
    EXPECT_TRUE(exit_code == 0 || exit_code == 128 + signal) << exit_code;
    EXPECT_TRUE(fs::exists(folder / "config.json"));
    EXPECT_FALSE(fs::exists(first));
  }
  fs::remove_all(folder);
}

TEST(Cli, ADirectoryWithoutAModelIsToldSo) {
  for (const char* verb : {"complete", "chat", "inspect", "serve"}) {
    std::vector<std::string> args{verb, "/tmp"};
    if (std::string(verb) == "complete") args.insert(args.end(), {"-p", "x"});
    const ProgramResult result = run_program(args);
    expect_bad_input(result);
    EXPECT_TRUE(has(result.err, "config.json is missing")) << result.err;
  }
}

TEST(Cli, TheNetworkNeedsAKey) {
  const ProgramResult result = run_program({"serve", "/no/such/model", "--host", "0.0.0.0"});
  expect_bad_input(result);
  EXPECT_TRUE(has(result.err, "--api-key")) << result.err;
}

}  // namespace
}  // namespace hotset
