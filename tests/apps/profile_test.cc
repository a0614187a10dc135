// SPDX-License-Identifier: Apache-2.0
// Routing profiles as a user meets them: the verb that makes one, the flags that use and save one.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "apps/run_program.h"
#include "experts/routing_profile.h"
#include "experts/routing_trace.h"
#include "server/strict_json.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;
using test::BackgroundProgram;
using test::ProgramResult;
using test::run_program;

const std::string kDemo = std::string(HOTSET_SOURCE_DIR) + "/models/demo";

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class Profile : public testing::Test {
 protected:
  Profile()
      : folder_(fs::temp_directory_path() / ("hotset_profile_" + std::to_string(::getpid()))) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Profile() override { fs::remove_all(folder_); }
  [[nodiscard]] std::string path(const std::string& name) const {
    return (folder_ / name).string();
  }
  [[nodiscard]] std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name)) << text;
    return path(name);
  }
  static Json read(const std::string& file) {
    std::ifstream in(file);
    auto json = parse_strict_json(std::string(std::istreambuf_iterator<char>(in), {}));
    EXPECT_TRUE(json.has_value()) << file;
    return json ? std::move(*json) : Json();
  }
  // On the CPU, of a few hundred tokens.
  static ProgramResult profile(std::vector<std::string> more) {
    std::vector<std::string> args = {"profile", kDemo, "--device", "cpu"};
    args.insert(args.end(), more.begin(), more.end());
    return run_program(args);
  }
  static ProgramResult complete(std::vector<std::string> more) {
    std::vector<std::string> args = {"complete", kDemo,           "-p", "The",      "-n",
                                     "4",        "--temperature", "0",  "--device", "cpu"};
    args.insert(args.end(), more.begin(), more.end());
    return run_program(args);
  }

  fs::path folder_;
};

TEST_F(Profile, TheVerbCountsChoicesAndSaysWhatACacheMakesOfThem) {
  const std::string file = path("p");
  const ProgramResult result = profile({"-n", "300", "-o", file});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part :
       {"the first 300 of", "heldout.txt", "6 of 32 experts", "entropy, bits", "most popular 10 %",
        "LRU 20 %", "hotset 30 %", "| 7 |", "| mean |", "tokens after a load"}) {
    EXPECT_TRUE(has(result.out, part)) << part << " in " << result.out;
  }
  EXPECT_TRUE(has(result.err, file + ": the choices of 300 tokens")) << result.err;
  const Json json = read(file);
  EXPECT_EQ(json["format"], "hotset-routing-profile");
  EXPECT_EQ(json["num_tokens"], 300);
  ASSERT_EQ(json["counts"].size(), 8u);
  for (const Json& layer : json["counts"]) {
    const auto counts = layer.get<std::vector<int64_t>>();
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), 300 * 6);
  }
  // In pieces of another size the model reads something else; the same pieces give the same counts.
  ASSERT_EQ(profile({"-n", "300", "-o", path("again"), "-t", "1"}).exit_code, 0);
  EXPECT_EQ(read(path("again")), json);
}

// What expert_cache_sim --trace reads is what was counted, in its order.
TEST_F(Profile, ATraceHoldsTheChoicesThatWereCounted) {
  const ProgramResult result = profile({"-n", "100", "-o", path("p"), "--trace", path("t")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(has(result.err, path("t") + ": what 100 tokens chose")) << result.err;
  const auto trace = RoutingTrace::load(path("t"));
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_EQ(trace->num_steps(), 100);
  const auto counted = RoutingProfile::load(path("p"));
  ASSERT_TRUE(counted) << counted.error().message;
  EXPECT_EQ(trace->shape(), counted->shape());
  auto heard = RoutingProfile::create(trace->shape());
  ASSERT_TRUE(heard);
  for (int64_t step = 0; step < trace->num_steps(); ++step) {
    for (int32_t layer = 0; layer < trace->shape().num_layers; ++layer) {
      heard->add(layer, trace->ids(step, layer));
    }
  }
  heard->add_tokens(trace->num_steps());
  ASSERT_TRUE(heard->save(path("h")));
  EXPECT_EQ(read(path("h")), read(path("p")));
  EXPECT_NE(profile({"-n", "40", "--trace", path("no/such")}).exit_code, 0);
}

TEST_F(Profile, AppendAddsUp) {
  const std::string file = path("p");
  const std::string text = write("text", "Many hands make light work. Too many cooks spoil it.\n");
  ASSERT_EQ(profile({"--text", text, "-o", file, "--append"}).exit_code, 0) << "nothing there yet";
  const Json once = read(file);
  const ProgramResult second = profile({"--text", text, "-o", file, "--append"});
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_TRUE(has(second.err, "of them from before")) << second.err;
  const Json twice = read(file);
  EXPECT_EQ(twice["num_tokens"].get<int64_t>(), 2 * once["num_tokens"].get<int64_t>());
  for (size_t layer = 0; layer < 8; ++layer) {
    for (size_t e = 0; e < 32; ++e) {
      EXPECT_EQ(twice["counts"][layer][e].get<int64_t>(),
                2 * once["counts"][layer][e].get<int64_t>());
    }
  }
  ASSERT_EQ(profile({"--text", text, "-o", file}).exit_code, 0);
  EXPECT_EQ(read(file), once) << "without --append it is written anew";
}

TEST_F(Profile, QuestionsAreAnswered) {
  const std::string questions = write("q", "How much is 4 plus 5?\n\nWhat is 2 + 3?\r\n");
  const auto tokens_with = [&](const char* answer_tokens) {
    const ProgramResult result =
        profile({"--prompt-file", questions, "--answer-tokens", answer_tokens, "--json"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const auto json = parse_strict_json(result.out);
    EXPECT_TRUE(json) << result.out;
    if (!json) return int64_t{0};
    EXPECT_EQ((*json)["layers"].size(), 8u);
    EXPECT_EQ((*json)["layers"][3]["layer"], 3);
    EXPECT_EQ((*json)["mean"]["hotset_hit_rate"].size(), 3u);
    EXPECT_TRUE(has((*json)["text"].get<std::string>(), "and its answers"));
    return (*json)["num_tokens"].get<int64_t>();
  };
  const int64_t without = tokens_with("0");
  EXPECT_EQ(tokens_with("2"), without + 4);
}

TEST_F(Profile, WhatIsWrongWithTheFilesIsSaid) {
  const std::string other = write(
      "other", R"({"format":"hotset-routing-profile","version":1,"num_layers":2,"num_experts":2,
                   "top_k":1,"num_tokens":2,"counts":[[1,1],[0,2]]})");
  const std::string broken = write("broken", R"({"format":"hotset-routing-profile","version":1)");
  const auto error_of = [&](const ProgramResult& result) {
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_EQ(result.err.rfind("hotset: error: ", 0), 0u) << "before loading: " << result.err;
    EXPECT_TRUE(result.out.empty());
    return result.err;
  };
  const std::string mismatch = error_of(complete({"--expert-profile", other}));
  for (const std::string& part : {other, kDemo, std::string("2 layers of 2 experts, 1 a token"),
                                  std::string("8 layers of 32 experts, 6 a token")}) {
    EXPECT_TRUE(has(mismatch, part)) << mismatch;
  }
  EXPECT_TRUE(has(error_of(complete({"--expert-profile", broken})), broken));
  EXPECT_TRUE(has(error_of(complete({"--expert-profile", path("none")})), path("none")));
  EXPECT_TRUE(has(error_of(complete({"--save-expert-profile", path("no/where")})), path("no")));
  EXPECT_TRUE(has(error_of(complete({"--save-expert-profile", path("")})), "is a directory"));
  for (const char* verb : {"chat", "serve", "bench"}) {
    EXPECT_TRUE(has(error_of(run_program({verb, kDemo, "--expert-profile", broken})), broken));
  }
  EXPECT_TRUE(has(error_of(profile({"--append"})), "-o FILE"));
  EXPECT_TRUE(has(error_of(profile({"-o", "-"})), "no file"));
  EXPECT_TRUE(has(error_of(profile({"-o", ""})), "missing"));
  EXPECT_TRUE(has(error_of(profile({"-n", "2m"})), "--max-tokens"));
  EXPECT_TRUE(has(error_of(profile({"--append", "-o", broken})), broken));
  EXPECT_TRUE(has(error_of(profile({"--text", path("none")})), path("none")));
  EXPECT_TRUE(has(error_of(profile({"--text", write("empty", " \n")})), "holds no text"));
  EXPECT_TRUE(has(error_of(profile({"--text", write("bad", "a\xff")})), "UTF-8 at byte 1"));
  // A trace is written last: over nothing else that is named.
  const std::string text = write("text", "The dog slept.");
  EXPECT_TRUE(has(error_of(profile({"-o", path("p"), "--trace", path("./p")})), "--output"));
  EXPECT_TRUE(has(error_of(profile({"--text", text, "--trace", text})), "--text"));
  EXPECT_TRUE(has(error_of(profile({"--prompt-file", text, "--trace", text})), "--prompt-file"));
  const ProgramResult late = profile({"--append", "-o", other});
  EXPECT_EQ(late.exit_code, 2);
  EXPECT_TRUE(has(late.err, "2 layers of 2 experts")) << late.err;
}

TEST_F(Profile, ARunSavesWhatItChoseAndTheNextOneReadsIt) {
  const std::string file = path("run");
  const ProgramResult first = complete({"--save-expert-profile", file});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const auto num_tokens = read(file)["num_tokens"].get<int64_t>();
  EXPECT_GE(num_tokens, 2);
  EXPECT_TRUE(has(first.err, fmt::format("{} tokens chose", num_tokens))) << first.err;
  const ProgramResult second = complete({"--expert-profile", file});
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_EQ(second.out, first.out);
  EXPECT_TRUE(has(second.err, "--expert-profile has no effect: the CPU")) << second.err;

  // Into the file that it started from: the counts add up.
  const ProgramResult third = complete({"--expert-profile", file, "--save-expert-profile", file});
  ASSERT_EQ(third.exit_code, 0) << third.err;
  EXPECT_TRUE(has(third.err, "added to " + file)) << third.err;
  EXPECT_EQ(read(file)["num_tokens"].get<int64_t>(), 2 * num_tokens);

  const ProgramResult chat = run_program(
      {"chat", kDemo, "--device", "cpu", "--quiet", "-n", "3", "--save-expert-profile", file},
      "Hello\n");
  ASSERT_EQ(chat.exit_code, 0) << chat.err;
  EXPECT_NE(read(file)["num_tokens"], num_tokens);
  const ProgramResult nothing = run_program(
      {"chat", kDemo, "--device", "cpu", "--quiet", "--save-expert-profile", file}, "/help\n");
  EXPECT_EQ(nothing.exit_code, 0);
  EXPECT_TRUE(has(nothing.err, "is left as it is")) << nothing.err;
  EXPECT_GT(read(file)["num_tokens"].get<int64_t>(), 0);
}

TEST_F(Profile, AProfileThatCannotBeSavedIsNoFailedRun) {
  const ProgramResult result = complete({"--save-expert-profile", "/dev/full"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_GT(result.out.size(), 1u);
  EXPECT_TRUE(has(result.err, "--save-expert-profile failed: /dev/full")) << result.err;
}

TEST_F(Profile, CtrlCEndsTheReadingAndKeepsWhatWasCounted) {
  std::string text;
  for (int i = 0; i < 40000; ++i) text += "The dog slept all Saturday. ";
  const std::string file = path("p");
  BackgroundProgram program({"profile", kDemo, "--device", "cpu", "-t", "1", "-n", "1m", "--text",
                             write("long", text), "-o", file});
  for (int i = 0; i < 4000 && !has(program.read_errors(), "reading "); ++i) ::usleep(5000);
  ::usleep(500000);
  program.send_signal(SIGINT);
  EXPECT_EQ(program.wait_for_exit(20), 130) << program.read_errors();
  if (fs::exists(file)) {  // else it had not begun
    EXPECT_LT(read(file)["num_tokens"].get<int64_t>(), 1 << 20);
  }
}

TEST_F(Profile, AServerThatIsStoppedSaves) {
  const std::string file = path("served");
  std::ofstream(file) << "an older one";
  BackgroundProgram server(
      {"serve", kDemo, "--device", "cpu", "--port", "0", "--save-expert-profile", file});
  for (int i = 0; i < 4000 && !has(server.read_errors(), "serving"); ++i) ::usleep(5000);
  server.send_signal(SIGTERM);
  EXPECT_EQ(server.wait_for_exit(20), 0);
  EXPECT_TRUE(has(server.read_errors(), "no token was computed")) << server.read_errors();
}

}  // namespace
}  // namespace hotset
