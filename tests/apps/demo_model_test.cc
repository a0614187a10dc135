// SPDX-License-Identifier: Apache-2.0
// The whole way, with the small model of this repository: files in, text out.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "apps/run_program.h"
#include "server/strict_json.h"
#include "support/http_client.h"

namespace hotset {
namespace {

using test::BackgroundProgram;
using test::http_get;
using test::http_post;
using test::HttpAnswer;
using test::ProgramResult;
using test::run_program;

const std::string kDemo = std::string(HOTSET_SOURCE_DIR) + "/models/demo";

constexpr bool has_cuda() {
#ifdef HOTSET_HAS_CUDA
  return true;
#else
  return false;
#endif
}

Json json_of(const std::string& text) {
  auto json = parse_strict_json(text);
  EXPECT_TRUE(json.has_value()) << text;
  return json ? std::move(json).value() : Json();
}

TEST(DemoModel, CompletesTheSameTextForTheSameSeed) {
  const auto complete = [](const std::string& seed) {
    return run_program({"complete", kDemo, "-p", "The", "-n", "24", "--temperature", "0.9",
                        "--seed", seed, "--quiet"});
  };
  const ProgramResult first = complete("7");
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_GT(first.out.size(), 1u) << "more than the closing line feed";
  EXPECT_TRUE(first.err.empty()) << first.err;
  EXPECT_EQ(complete("7").out, first.out);
}

TEST(DemoModel, PrintsJson) {
  const ProgramResult result =
      run_program({"complete", kDemo, "--json", "-n", "5", "--temperature", "0"}, "The");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = json_of(result.out);
  EXPECT_LE(json["usage"]["completion_tokens"].get<int>(), 5);
  EXPECT_TRUE(json.contains("text"));
  EXPECT_NE(result.err.find("loading 100 %"), std::string::npos) << result.err;
}

// Also on a machine without a GPU: --gpu-memory describes one.
TEST(DemoModel, PlansMemoryWithoutLoading) {
  const ProgramResult cpu = run_program({"plan", kDemo, "--device", "cpu", "--json"});
  ASSERT_EQ(cpu.exit_code, 0) << cpu.err;
  const Json on_cpu = json_of(cpu.out);
  EXPECT_EQ(on_cpu["device"], "CPU");
  int64_t sum = 0;
  for (const Json& line : on_cpu["ram"]) sum += line["bytes"].get<int64_t>();
  EXPECT_EQ(sum, on_cpu["ram_used_bytes"].get<int64_t>());
  EXPECT_FALSE(on_cpu.contains("gpu"));
  EXPECT_FALSE(on_cpu.contains("no_gpu")) << "none was wanted";
  if (!has_cuda()) return;

  const ProgramResult gpu = run_program(
      {"plan", kDemo, "--gpu-memory", "4GiB", "--ram", "8GiB", "--max-model-len", "4k", "--json"});
  ASSERT_EQ(gpu.exit_code, 0) << gpu.err;
  const Json on_gpu = json_of(gpu.out);
  sum = 0;
  for (const Json& line : on_gpu["gpu"]) sum += line["bytes"].get<int64_t>();
  EXPECT_EQ(sum, on_gpu["gpu_used_bytes"].get<int64_t>());
  EXPECT_LE(sum, int64_t{4} << 30);
  EXPECT_EQ(on_gpu["max_model_len"], 4096);
  EXPECT_EQ(on_gpu["num_slots"], on_gpu["num_experts"]);
  EXPECT_EQ(on_gpu["expected_hit_rate"], 1.0);
  EXPECT_GT(on_gpu["expected_tok_s"].get<double>(), 1.0);

  const ProgramResult text = run_program({"plan", kDemo, "--gpu-memory", "4GiB"});
  for (const char* part : {"GPU memory", "expert slots", "RAM", "tokens/s"}) {
    EXPECT_NE(text.out.find(part), std::string::npos) << text.out;
  }
  const ProgramResult refused = run_program(
      {"plan", kDemo, "--device", "cuda", "--gpu-memory", "512MiB", "--max-model-len", "4k"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("may be used"), std::string::npos) << refused.err;
}

// 257 sequences' states are more than that; the flags that are named exist and are enough.
TEST(DemoModel, ARefusalNamesFlagsThatThereAre) {
  const ProgramResult result =
      run_program({"plan", kDemo, "--device", "cpu", "--ram", "40MiB", "--max-num-seqs", "256"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("raise --ram to "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("lower --max-num-seqs to "), std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("--prefill-chunk"), std::string::npos) << result.err;
}

// Also where the context is open, which grows with the budget.
TEST(DemoModel, AGpuBudgetThatWasRaisedAsAdvisedIsEnough) {
  if (!has_cuda()) return;
  const auto plan = [](const std::string& gpu_memory) {
    return run_program(
        {"plan", kDemo, "--device", "cuda", "--gpu-memory", gpu_memory, "--ram", "8GiB", "--json"});
  };
  const ProgramResult refused = plan("800MiB");
  // Of a GPU that is here the free memory is told beside the flag.
  const bool is_accepted = refused.exit_code == 0;
  if (is_accepted ? !json_of(refused.out)["rates_are_typical"].get<bool>()
                  : refused.err.find(" free)") != std::string::npos) {
    fmt::print("not tested: a GPU is here, and its budget is not the flag's alone\n");
    return;
  }
  ASSERT_EQ(refused.exit_code, 1) << refused.out;
  ASSERT_NE(refused.err.find("(--gpu-memory)"), std::string::npos) << refused.err;
  const std::string words = "raise --gpu-memory to ";
  const size_t at = refused.err.find(words);
  ASSERT_NE(at, std::string::npos) << refused.err;
  std::string advised = refused.err.substr(at + words.size());
  advised.resize(advised.find_first_not_of("0123456789.MGiB"));
  const ProgramResult raised = plan(advised);
  ASSERT_EQ(raised.exit_code, 0) << advised << ": " << raised.err;
  EXPECT_EQ(json_of(raised.out)["max_model_len"], 8192) << advised;
}

TEST(DemoModel, FlagsOfAGpuAreSaidToDoNothingOnTheCpu) {
  const ProgramResult result =
      run_program({"plan", kDemo, "--device", "cpu", "--gpu-memory", "14GiB", "--fetch-share",
                   "0.5", "--max-expert-slots", "3", "--max-model-len", "1k"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* flag : {"--gpu-memory", "--fetch-share", "--max-expert-slots"}) {
    EXPECT_NE(result.out.find(std::string(flag) + " has no effect: the CPU"), std::string::npos)
        << result.out;
  }
}

// Neither in JSON nor in a refusal; and a GPU that was tried may advise flags, which then are not
// said to do nothing.
TEST(DemoModel, WhyNoGpuComputesIsNeverSilent) {
  const ProgramResult json = run_program({"plan", kDemo, "--gpu-memory", "1MiB", "--json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const Json plan = json_of(json.out);
  ASSERT_EQ(plan["device"], "CPU") << json.out;
  EXPECT_FALSE(plan["no_gpu"].get<std::string>().empty());
  EXPECT_EQ(json.out.find("has no effect") == std::string::npos, has_cuda()) << json.out;
  const ProgramResult refused =
      run_program({"plan", kDemo, "--gpu-memory", "1MiB", "--ram", "2MiB"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("raise --ram to "), std::string::npos) << refused.err;
  EXPECT_NE(refused.err.find("(no GPU: "), std::string::npos) << refused.err;
}

TEST(DemoModel, ABenchThatIsTooWideIsToldSo) {
  const ProgramResult result = run_program({"bench", kDemo, "-p", "0", "-n", "8", "--seqs", "1,200",
                                            "--ram", "20MiB", "--device", "cpu"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find(", or fewer --seqs"), std::string::npos) << result.err;
}

TEST(DemoModel, ALengthThatIsTooLongHearsTheBound) {
  for (const char* length : {"999999999999", "99999999999999999999", "4096m"}) {
    const ProgramResult result = run_program({"plan", kDemo, "-c", length});
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find("must be at most 2147483648 tokens"), std::string::npos)
        << result.err;
  }
  const ProgramResult negative = run_program({"plan", kDemo, "--max-model-len=-5"});
  EXPECT_NE(negative.err.find("must be a number of tokens"), std::string::npos) << negative.err;
}

TEST(DemoModel, ABenchWithoutARowFailsAndSaysWhy) {
  const ProgramResult result = run_program({"bench", kDemo, "-p", "0", "-n", "8", "-d", "4k",
                                            "--max-model-len", "1k", "--device", "cpu"});
  EXPECT_EQ(result.exit_code, 1) << result.err;
  EXPECT_NE(result.err.find("no row could be measured: tg8 @ d4096: 4136 tokens do not fit"),
            std::string::npos)
      << result.err;
}

TEST(DemoModel, RamThatDoesNotHoldTheModelIsRefusedBeforeLoading) {
  const ProgramResult result =
      run_program({"complete", kDemo, "-p", "x", "--device", "cpu", "--ram", "2MiB"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("--ram"), std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("loading"), std::string::npos) << result.err;
}

TEST(DemoModel, RefusesBadSampling) {
  const ProgramResult result =
      run_program({"complete", kDemo, "-p", "x", "--temperature", "9", "--quiet"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("temperature"), std::string::npos);
}

TEST(DemoModel, ChatsThroughPipes) {
  const ProgramResult result = run_program(
      {"chat", kDemo, "--quiet", "--temperature", "0", "-n", "32"},
      "Hello\nAnd again\n/stats\n/reset\n/system Be brief.\nHello\n/nonsense\n/quit\nnot read\n");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("output tokens"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("kept)"), std::string::npos)
      << "the second answer continues from the first one's state: " << result.out;
  EXPECT_NE(result.err.find("unknown command /nonsense"), std::string::npos);
  EXPECT_EQ(result.out.find('\033'), std::string::npos) << "no colours in a pipe";
}

TEST(DemoModel, IsInspected) {
  const ProgramResult text = run_program({"inspect", kDemo});
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_NE(text.out.find("component"), std::string::npos);
  EXPECT_NE(text.out.find("total"), std::string::npos);
  const Json json = json_of(run_program({"inspect", kDemo, "--json"}).out);
  EXPECT_GT(json["memory_bytes"].get<int64_t>(), 0);
  EXPECT_FALSE(json["components"].empty());
}

TEST(DemoModel, ServesAndStopsOnSigterm) {
  BackgroundProgram server({"serve", kDemo, "--port", "0", "--served-model-name", "demo"});
  const uint16_t port = server.wait_for_port();
  ASSERT_NE(port, 0) << server.read_errors();
  EXPECT_EQ(http_get(port, "/health").status, 200);
  EXPECT_EQ(json_of(http_get(port, "/v1/models").body)["data"][0]["id"], "demo");
  const std::string body = R"({"model":"demo","messages":[{"role":"user","content":"Hello"}],
                               "max_tokens":16,"temperature":0,"seed":1)";
  const HttpAnswer whole = http_post(port, "/v1/chat/completions", body + "}");
  ASSERT_EQ(whole.status, 200) << whole.body;
  const Json message = json_of(whole.body)["choices"][0]["message"];
  const HttpAnswer streamed = http_post(port, "/v1/chat/completions", body + ",\"stream\":true}");
  std::string content;
  for (const std::string& event : test::sse_data(streamed.body)) {
    if (event != "[DONE]") content += json_of(event)["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(message["content"], content) << "stream and whole answer are one text";
  server.send_signal(SIGTERM);
  EXPECT_EQ(server.wait_for_exit(20), 0);
}

// Streams and whole answers, greedy and drawn, of different lengths, more of them than run at once.
TEST(DemoModel, ClientsGetTogetherWhatTheyGetAlone) {
  BackgroundProgram server({"serve", kDemo, "--port", "0", "--max-num-seqs", "3"});
  const uint16_t port = server.wait_for_port();
  ASSERT_NE(port, 0) << server.read_errors();
  const auto ask = [port](int n) {
    const bool stream = n % 2 == 1;
    const Json body = {{"prompt", "The " + std::string(static_cast<size_t>(n * 3), 'a') + " is"},
                       {"max_tokens", 24 + 8 * (n % 3)},
                       {"temperature", n % 3 == 0 ? 0.0 : 1.0},
                       {"seed", 40 + n},
                       {"ignore_eos", true},
                       {"stream", stream}};
    const HttpAnswer answer = http_post(port, "/v1/completions", body.dump());
    EXPECT_EQ(answer.status, 200) << answer.body;
    if (!stream) return json_of(answer.body)["choices"][0]["text"].get<std::string>();
    std::string text;
    for (const std::string& event : test::sse_data(answer.body)) {
      if (event != "[DONE]") text += json_of(event)["choices"][0]["text"].get<std::string>();
    }
    return text;
  };
  constexpr int kClients = 6;
  std::vector<std::string> alone, together(kClients);
  for (int n = 0; n < kClients; ++n) alone.push_back(ask(n));
  std::vector<std::thread> clients;
  for (int n = 0; n < kClients; ++n) {
    clients.emplace_back([&, n] { together[static_cast<size_t>(n)] = ask(n); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(together, alone);
  for (const std::string& text : alone) EXPECT_FALSE(text.empty());
}

TEST(DemoModel, CallsATool) {
  BackgroundProgram server({"serve", kDemo, "--port", "0"});
  const uint16_t port = server.wait_for_port();
  ASSERT_NE(port, 0) << server.read_errors();
  const std::string body = R"({"messages":[{"role":"user","content":"Multiply 912 by 293."}],
      "temperature":0,"tools":[{"type":"function","function":{"name":"multiply_numbers",
      "description":"Multiply two numbers","parameters":{"type":"object","properties":{
      "a":{"type":"integer","description":"First number"},
      "b":{"type":"integer","description":"Second number"}},"required":["a","b"]}}}])";
  const Json whole = json_of(http_post(port, "/v1/chat/completions", body + "}").body);
  const Json& choice = whole["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls") << whole.dump();
  EXPECT_TRUE(choice["message"]["content"].is_null());
  const Json& call = choice["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(call["name"], "multiply_numbers");
  EXPECT_EQ(json_of(call["arguments"]), (Json{{"a", 912}, {"b", 293}}));
  std::string name, arguments;
  const HttpAnswer streamed = http_post(port, "/v1/chat/completions", body + ",\"stream\":true}");
  for (const std::string& event : test::sse_data(streamed.body)) {
    if (event == "[DONE]") continue;
    const Json json = json_of(event);
    for (const Json& piece : json["choices"][0]["delta"].value("tool_calls", Json::array())) {
      name += piece["function"].value("name", "");
      arguments += piece["function"].value("arguments", "");
    }
  }
  EXPECT_EQ(name, "multiply_numbers");
  EXPECT_EQ(arguments, call["arguments"]);
}

TEST(DemoModel, RevisionsAreForTheCache) {
  const ProgramResult result = run_program({"inspect", kDemo, "--revision", "abc"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("--revision abc"), std::string::npos) << result.err;
}

TEST(DemoModel, BenchMeasuresWhatFitsAndSaysWhatDoesNot) {
  const ProgramResult result = run_program(
      {"bench", "-p", "32,600", "-n",     "4",     "-d",       "0,64", "--seqs",  "1,3",    "-r",
       "2",     "-c", "300",    "--text", "drift", "--device", "cpu",  "--quiet", "--json", kDemo});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = json_of(result.out);
  std::vector<std::string> names;
  for (const Json& row : json["rows"]) {
    names.push_back(row["test"]);
    EXPECT_EQ(row["seconds"].size(), 2u);
    EXPECT_GT(row["tokens_per_s"]["median"].get<double>(), 0);
    EXPECT_EQ(row.contains("bytes_per_token"), row["kind"] == "decode") << row.dump();
  }
  EXPECT_EQ(names, (std::vector<std::string>{"pp32", "tg4", "tg4 x3", "pp32 @ d64", "tg4 @ d64",
                                             "tg4 x3 @ d64"}));
  ASSERT_EQ(json["skipped"].size(), 2u);
  EXPECT_EQ(json["skipped"][0]["test"], "pp600");
  EXPECT_NE(json["skipped"][0]["why"].get<std::string>().find("300 (--max-model-len)"),
            std::string::npos);
}

// A flag that can't help is not named.
TEST(DemoModel, BenchNamesTheLongestContextOfTheModel) {
  const ProgramResult result = run_program({"bench", "-p", "40000", "-n", "1", "-r", "1", "-c",
                                            "32k", "--device", "cpu", "--quiet", "--json", kDemo});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(json_of(result.out)["skipped"][0]["why"],
            "40000 tokens do not fit the model's longest context of 32768");
}

TEST(DemoModel, SigtermUnderAStreamEndsWell) {
  BackgroundProgram server({"serve", kDemo, "--port", "0", "--drain-seconds", "0"});
  const uint16_t port = server.wait_for_port();
  ASSERT_NE(port, 0) << server.read_errors();
  test::HttpClient client(port);
  client.post("/v1/completions",
              R"({"prompt":"The","max_tokens":100000,"ignore_eos":true,"stream":true})");
  ASSERT_TRUE(client.read_until("data: "));
  server.send_signal(SIGTERM);
  EXPECT_TRUE(client.read_until("shutting down"));
  EXPECT_EQ(server.wait_for_exit(20), 0);
}

}  // namespace
}  // namespace hotset
