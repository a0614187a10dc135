// SPDX-License-Identifier: Apache-2.0
// Bad requests, most of them generated from the limits table: each gets a 4xx in the API's error
// shape, none a 5xx, and the server answers a good request afterwards.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "request/limits.h"
#include "server/strict_json.h"
#include "support/test_server.h"

namespace hotset {
namespace {

using test::chat_body;
using test::HttpAnswer;
using test::HttpClient;
using test::TestServer;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kCompletions = "/v1/completions";

struct BadCase {
  std::string path;
  std::string body;
  std::string param;  // the field that must be named; empty: any
};

std::string with_field(const char* path, const std::string& field, const std::string& value) {
  const std::string extra = fmt::format("\"{}\":{}", field, value);
  if (std::string(path) == kChat) return chat_body(extra);
  return field == "prompt" ? "{" + extra + "}" : R"({"prompt":"x",)" + extra + "}";
}

void add(std::vector<BadCase>& cases, const char* path, const std::string& field,
         const std::string& value) {
  cases.push_back({path, with_field(path, field, value), field});
}

// Beyond each limit, far beyond it, and of every wrong type.
void add_number_cases(std::vector<BadCase>& cases, const char* path) {
  for (const NumberLimit& limit : number_limits()) {
    const std::string field(limit.field);
    const bool is_chat = std::string(path) == kChat;
    if (is_chat && field == "logprobs") continue;       // a boolean there
    if (!is_chat && field == "top_logprobs") continue;  // not read there
    const double step = limit.is_integer ? 1 : 1e-3;
    for (const double value : {limit.min - step, limit.max + step}) {
      add(cases, path, field, fmt::format("{}", value));
    }
    if (limit.min_is_excluded) add(cases, path, field, fmt::format("{}", limit.min));
    for (const char* value : {"1e30", "-1e30", "9223372036854775807", "18446744073709551615",
                              "-9223372036854775808", "\"1\"", "true", "[]", "{}", "[1]"}) {
      if (field == "max_tokens" && std::string(value) == "true") continue;
      add(cases, path, field, value);
    }
    if (limit.is_integer && limit.max > 1) add(cases, path, field, "1.5");
  }
}

void add_shared_cases(std::vector<BadCase>& cases, const char* path) {
  add_number_cases(cases, path);
  for (const char* value : {"1.5", "\"7\"", "1e30", "[1]", "18446744073709551616"}) {
    add(cases, path, "seed", value);
  }
  for (const char* field : {"stream", "ignore_eos", "include_stop_str_in_output"}) {
    for (const char* value : {"1", "\"true\"", "[]", "{}"}) add(cases, path, field, value);
  }
  std::string many = "\"a\"";
  for (size_t i = 0; i < count_limit("stop"); ++i) many += ",\"a\"";
  for (const std::string& value :
       {std::string("1"), std::string("[1]"), std::string("[\"a\",null]"), std::string("\"\""),
        std::string("[\"\"]"), std::string("{}"), std::string("true"), "[" + many + "]",
        "\"" + std::string(kMaxStopBytes + 1, 'x') + "\""}) {
    add(cases, path, "stop", value);
  }
  for (const char* value : {"[-1]", "[259]", "[300]", "[2147483648]", "[9223372036854775808]",
                            "[1.5]", "[\"1\"]", "[null]", "7", "{}", "\"a\""}) {
    add(cases, path, "stop_token_ids", value);
  }
  for (const char* value :
       {R"({"-1":1})", R"({"259":1})", R"({"99999999999999999999":1})", R"({"x":1})", R"({"":1})",
        R"({"1":101})", R"({"1":-101})", R"({"1":1e30})", R"({"1":"2"})", R"({"1":null})",
        R"({" 1":1})", R"({"1.0":1})", "[]", "[1]", "3", "\"a\""}) {
    add(cases, path, "logit_bias", value);
  }
  std::string biases = "\"0\":1";
  for (size_t i = 1; i <= count_limit("logit_bias"); ++i) biases += fmt::format(",\"{}\":1", i);
  add(cases, path, "logit_bias", "{" + biases + "}");
  for (const char* value : {"[]", "1", "{\"include_usage\":1}", "{\"include_usage\":true}"}) {
    add(cases, path, "stream_options", value);  // the last one without "stream"
  }
  for (const char* value : {R"({"type":"json_object"})", R"({"type":"json_schema"})", "{}",
                            R"({"type":3})", "[]", "\"json\""}) {
    add(cases, path, "response_format", value);
  }
  for (const char* field : {"guided_json", "guided_regex", "guided_choice", "guided_grammar",
                            "structured_outputs", "grammar", "json_schema", "chat_template"}) {
    add(cases, path, field, "{\"a\":1}");
    add(cases, path, field, "\"x\"");
  }
  add(cases, path, "continue_final_message", "true");
  for (const char* value : {"1", "\"true\"", "[]", "{}"}) add(cases, path, "echo", value);
  add(cases, path, "suffix", "\"x\"");
  for (const char* value : {"1", "[]", "{}", "true"}) add(cases, path, "model", value);
  add(cases, path, "model", "\"" + std::string(kMaxNameBytes + 1, 'm') + "\"");
}

void add_chat_cases(std::vector<BadCase>& cases) {
  const auto add_messages = [&](const std::string& value, const std::string& param = "") {
    cases.push_back({kChat, "{\"messages\":" + value + "}", param});
  };
  for (const char* value : {"null", "[]", "{}", "\"hi\"", "1", "true"}) {
    add_messages(value, "messages");
  }
  for (const char* value : {"[1]", "[null]", "[\"hi\"]", "[[]]"}) add_messages(value, "messages");
  for (const char* role : {"1", "null", "\"\"", "\"root\"", "\"User\"", "[]"}) {
    add_messages(fmt::format(R"([{{"role":{},"content":"x"}}])", role), "messages[0].role");
  }
  add_messages(R"([{"content":"x"}])", "messages[0].role");
  for (const char* content :
       {"1", "true", "{}", "[1]", "[null]", "[\"x\"]", "[{}]", R"([{"type":"text"}])",
        R"([{"type":"text","text":1}])", R"([{"type":"image_url","image_url":{"url":"http://x"}}])",
        R"([{"type":"input_audio","input_audio":{}}])", R"([{"type":1,"text":"x"}])"}) {
    add_messages(fmt::format(R"([{{"role":"user","content":"ok"}},{{"role":"user","content":{}}}])",
                             content),
                 "messages[1].content");
  }
  for (const char* calls :
       {"{}", "1", "[1]", "[{}]", R"([{"function":1}])", R"([{"function":{}}])",
        R"([{"function":{"name":1}}])", R"([{"function":{"name":"f","arguments":1}}])",
        R"([{"function":{"name":"f","arguments":[]}}])"}) {
    add_messages(fmt::format(R"([{{"role":"assistant","content":"","tool_calls":{}}}])", calls),
                 "messages[0].tool_calls");
  }
  for (const char* field : {"reasoning_content", "reasoning", "name", "tool_call_id"}) {
    add_messages(fmt::format(R"([{{"role":"user","content":"x","{}":1}}])", field),
                 fmt::format("messages[0].{}", field));
  }
  add_messages(R"([{"role":"user","content":"raise"}])", "messages");
  std::string many = R"({"role":"user","content":"x"})";
  for (size_t i = 0; i < count_limit("messages"); ++i) many += R"(,{"role":"user","content":"x"})";
  add_messages("[" + many + "]", "messages");
  for (const char* tools :
       {"{}", "1", "\"x\"", "[1]", "[{}]", R"([{"type":"function"}])",
        R"([{"type":"function","function":{}}])", R"([{"type":"function","function":{"name":1}}])",
        R"([{"type":"function","function":{"name":""}}])",
        R"([{"type":"retrieval","function":{"name":"f"}}])"}) {
    add(cases, kChat, "tools", tools);
  }
  add(cases, kChat, "tools",
      R"([{"type":"function","function":{"name":")" + std::string(kMaxNameBytes + 1, 'f') +
          "\"}}]");
  add(cases, kChat, "tools",
      R"([{"type":"function","function":{"name":"f","description":")" +
          std::string(kMaxSchemaBytes, 'd') + "\"}}]");
  for (const char* choice :
       {"1", "\"required\"", "\"any\"", "[]", R"({"type":"function","function":{"name":"f"}})"}) {
    add(cases, kChat, "tool_choice", choice);
  }
  add(cases, kChat, "top_logprobs", "3");  // without logprobs
  add(cases, kChat, "echo", "true");       // of completions
  for (const char* value : {"1", "\"true\"", "[]"}) add(cases, kChat, "logprobs", value);
  for (const char* value : {"1", "[]", "\"x\""}) add(cases, kChat, "chat_template_kwargs", value);
}

void add_completion_cases(std::vector<BadCase>& cases) {
  for (const char* prompt : {"null", "1", "true", "{}", "\"\"", "[]", "[\"a\",\"b\"]", "[[1],[2]]",
                             "[1,\"a\"]", "[-1]", "[259]", "[2147483648]", "[1.5]", "[null]",
                             "[[]]", "[{}]", "[[\"a\"]]", "[\"\"]", "[18446744073709551615]"}) {
    add(cases, kCompletions, "prompt", prompt);
  }
  cases.push_back({kCompletions, "{}", "prompt"});
  cases.push_back({kCompletions, R"({"prompt":"x","echo":true,"logprobs":0})", "echo"});
}

void add_body_cases(std::vector<BadCase>& cases) {
  for (const char* path : {kChat, kCompletions, "/tokenize", "/detokenize"}) {
    for (const std::string& body :
         {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("1"),
          std::string("\"x\""), std::string("{}"), std::string("{\"a\":1,\"a\":2}"),
          std::string("{\"messages\":\"\\ud800\"}"), std::string("{\"prompt\":\"\xff\"}"),
          std::string("\0\0", 2), std::string("{\"prompt\":1e999}"), std::string(2000, '['),
          std::string(100'000, '{'),
          "{\"messages\":" + std::string(70, '[') + std::string(70, ']') + "}"}) {
      cases.push_back({path, body, ""});
    }
  }
}

TEST(BadRequests, GetFourHundredsAndDisturbNobody) {
  TestServer server;
  std::vector<BadCase> cases;
  add_shared_cases(cases, kChat);
  add_shared_cases(cases, kCompletions);
  add_chat_cases(cases);
  add_completion_cases(cases);
  add_body_cases(cases);
  ASSERT_GE(cases.size(), 600u);
  auto client = std::make_unique<HttpClient>(server.port());
  for (const BadCase& bad : cases) {
    const std::string what = bad.path + " " + bad.body.substr(0, 200);
    ASSERT_TRUE(client->post(bad.path, bad.body)) << what;
    const HttpAnswer answer = client->read_answer();
    ASSERT_GE(answer.status, 400) << what << " -> " << answer.body;
    ASSERT_LT(answer.status, 500) << what << " -> " << answer.body;
    const auto json = parse_strict_json(answer.body);
    ASSERT_TRUE(json.has_value() && json->contains("error")) << what;
    const Json& error = (*json)["error"];
    for (const char* key : {"message", "type", "param", "code"}) {
      ASSERT_TRUE(error.contains(key)) << what;
    }
    ASSERT_FALSE(error["message"].get<std::string>().empty()) << what;
    if (!bad.param.empty() && answer.status == 400) {
      ASSERT_EQ(error["param"], bad.param) << what << " -> " << answer.body;
    }
  }
  client->post(kChat, chat_body());
  EXPECT_EQ(client->read_answer().status, 200) << "the control request, on the same connection";
}

// What lies exactly on a limit is fine.
TEST(BadRequests, LimitsThemselvesAreAccepted) {
  TestServer server;
  for (const NumberLimit& limit : number_limits()) {
    const std::string field(limit.field);
    if (field == "top_logprobs" || field == "min_tokens") continue;  // need company, see above
    const char* path = field == "logprobs" ? kCompletions : kChat;
    for (const double value : {limit.min_is_excluded ? 0.5 : limit.min, limit.max}) {
      const auto answer =
          test::http_post(server.port(), path, with_field(path, field, fmt::format("{}", value)));
      EXPECT_EQ(answer.status, 200) << field << " " << value << answer.body;
    }
  }
}

}  // namespace
}  // namespace hotset
