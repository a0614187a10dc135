// SPDX-License-Identifier: Apache-2.0
// Model outputs sorted into reasoning, content and calls; the result must not depend on where the
// stream was cut, so every output is tried with every single cut and byte by byte.
#include "chat/tool_call_parser.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;
using Kind = OutputEvent::Kind;

const Json& tools() {
  static const Json kTools = Json::parse(
      R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
    "properties": {"s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"}, "b": {"type": "boolean"},
    "o": {"type": "object"}, "a": {"type": "array"}, "u": {"type": ["integer", "null"]}, "v": {"anyOf": [{"type": "number"}, {"type": "string"}]},
    "w": {}}}}}])");
  return kTools;
}

// "R(…)" reasoning, "C(…)" content, "T(name arguments)" a call; neighbours of one kind joined.
std::string shown(const std::vector<OutputEvent>& events) {
  std::string out;
  const Kind* open = nullptr;
  for (const OutputEvent& event : events) {
    if (event.kind == Kind::kToolCall) {
      out += (open != nullptr ? ")" : "") + ("T(" + event.name + " " + event.arguments + ")");
      open = nullptr;
      continue;
    }
    if (open == nullptr || *open != event.kind) {
      out += open != nullptr ? ")" : "";
      out += event.kind == Kind::kReasoning ? "R(" : "C(";
      open = &event.kind;
    }
    out += event.text;
  }
  return out + (open != nullptr ? ")" : "");
}

std::string parse(const OutputParserOptions& options, const std::vector<std::string_view>& pieces) {
  OutputParser parser(options, tools());
  std::vector<OutputEvent> events;
  for (const std::string_view piece : pieces) parser.feed(piece, events);
  parser.finish(events);
  return shown(events);
}

void expect_everywhere(const OutputParserOptions& options, std::string_view text,
                       const std::string& expected) {
  SCOPED_TRACE(std::string(text));
  EXPECT_EQ(parse(options, {text}), expected);
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    ASSERT_EQ(parse(options, {text.substr(0, cut), text.substr(cut)}), expected)
        << "cut at " << cut;
  }
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < text.size(); ++i) bytes.push_back(text.substr(i, 1));
  EXPECT_EQ(parse(options, bytes), expected);
  std::mt19937 rng(7);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string_view> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min<size_t>(1 + rng() % 9, text.size() - at);
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    ASSERT_EQ(parse(options, pieces), expected);
  }
}

OutputParserOptions hermes() {
  return {ToolCallFormat::kHermesJson, false, false};
}
OutputParserOptions xml() {
  return {ToolCallFormat::kQwen3Xml, false, false};
}

TEST(OutputParser, HermesCalls) {
  const std::pair<const char*, const char*> kCases[] = {
      {"Hello.", "C(Hello.)"},
      {"Hello \n\n", "C(Hello \n\n)"},
      {"", ""},
      {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\":  1}}\n</tool_call>",
       "T(f {\"a\":  1})"},
      {"Let me see.\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n",
       "C(Let me see.)T(f {})"},
      {"<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>\n{\"name\": \"g\", "
       "\"arguments\": {\"x\": [1, {\"y\": \"}\"}]}}</tool_call> ok",
       "T(f {})T(g {\"x\": [1, {\"y\": \"}\"}]})C(ok)"},
      {"<tool_call>\n{\"arguments\": {\"s\": \"</tool_call> \\\" \\\\\"}, \"name\": "
       "\"f\"}\n</tool_call>",
       "T(f {\"s\": \"</tool_call> \\\" \\\\\"})"},
      {"<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
       "T(f {\"a\": 1})"},
      {"<tool_call>{\"name\": \"f\"}</tool_call>", "T(f {})"},
      {"<tool_call>{\"name\": \"f\", \"parameters\": {\"a\": 1}}</tool_call>", "T(f {\"a\": 1})"},
      {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n", "T(f {\"a\": 1})"},
      // malformed: nothing is lost
      {"a \n<tool_call>\nnot json\n</tool_call> b", "C(a \n<tool_call>\nnot json\n</tool_call> b)"},
      {"<tool_call>{\"name\": 5}</tool_call>", "C(<tool_call>{\"name\": 5}</tool_call>)"},
      {"<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>x",
       "C(<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>x)"},
      {"<tool_call>{\"name\": \"f", "C(<tool_call>{\"name\": \"f)"},
      {"x <tool_cal", "C(x <tool_cal)"},
      {"x <tool_calls> <tool_call", "C(x <tool_calls> <tool_call)"},
      {"<tool_call>{\"a\": \"it\"s\"}</tool_call>\n<tool_call>{\"name\": \"f\", \"arguments\": "
       "{}}</tool_call>",
       "C(<tool_call>{\"a\": \"it\"s\"}</tool_call>)T(f {})"},
      {"<tool_call>\n<tool_call>", "C(<tool_call>\n<tool_call>)"},
      {"<think>no</think> <function=f>", "C(<think>no</think> <function=f>)"},
  };
  for (const auto& [text, expected] : kCases) expect_everywhere(hermes(), text, expected);
}

TEST(OutputParser, XmlCalls) {
  const std::pair<const char*, const char*> kCases[] = {
      {"Hi <there>", "C(Hi <there>)"},
      {"Ok.\n\n<tool_call>\n<function=f>\n<parameter=s>\nParis\n</parameter>\n</function>\n</"
       "tool_call>",
       "C(Ok.)T(f {\"s\":\"Paris\"})"},
      {"<function=f>\n<parameter=i>\n5\n</parameter>\n</function>\n</tool_call>\n done",
       "T(f {\"i\":5})C(done)"},
      {"<function=f>\n</function>", "T(f {})"},
      {"<tool_call><function=f></function></"
       "tool_call>\n<tool_call>\n<function=g>\n<parameter=z>\n1\n</parameter>\n</function>\n</"
       "tool_call>",
       "T(f {})T(g {\"z\":\"1\"})"},
      {"<tool_call>\n<function=f>\n<parameter=s>\n1\n</parameter>\n</"
       "function>\n<function=f>\n<parameter=i>\n2\n</parameter>\n</function>\n</tool_call>",
       "T(f {\"s\":\"1\"})T(f {\"i\":2})"},
      {"<function=f>\n<parameter=s>\n\na\n\nb\n\n</parameter>\n<parameter=n>\n1.5\n</"
       "parameter>\n<parameter=b>True</parameter><parameter=o>\n{\"k\": "
       "[1]}\n</parameter>\n<parameter=a>\n[]\n</parameter>\n<parameter=u>\nnull\n</"
       "parameter>\n<parameter=v>\n7\n</parameter>\n<parameter=w>\n7\n</parameter>\n</function>",
       "T(f "
       "{\"s\":\"\\na\\n\\nb\\n\",\"n\":1.5,\"b\":true,\"o\":{\"k\":[1]},\"a\":[],\"u\":null,\"v\":"
       "\"7\",\"w\":\"7\"})"},
      {"<function=f><parameter=i>\nfive\n</parameter><parameter=o>\n[1]\n</parameter></function>",
       "T(f {\"i\":\"five\",\"o\":\"[1]\"})"},
      {"<function=f><parameter=s>\ncode: </parameter> </function> </tool_call> "
       "<parameter\n</parameter>\n</function>",
       "T(f {\"s\":\"code: \"})C(<parameter\n</parameter>\n</function>)"},
      {"<function=f><parameter=s>\nx </parameter> y <b>\n</parameter>\n</function>",
       "T(f {\"s\":\"x </parameter> y <b>\"})"},
      {"<tool_call>\n<function=f>\n<parameter=s>\nx\n</parameter>\n</tool_call>",
       "T(f {\"s\":\"x\"})"},
      // malformed: nothing is lost
      {"a <tool_call>\nplain\n</tool_call>", "C(a <tool_call>\nplain\n</tool_call>)"},
      {"a <function=f> b", "C(a <function=f> b)"},
      {"<function=>", "C(<function=>)"},
      {"<function=a\nb>", "C(<function=a\nb>)"},
      {"<tool_call>\n<function=f>\n<parameter=s>\ncut",
       "C(<tool_call>\n<function=f>\n<parameter=s>\ncut)"},
      {"<tool_call> <function=bad <function=f></function>", "C(<tool_call> <function=bad)T(f {})"},
      {"x <funct", "C(x <funct)"},
      {"<tool_call>\n", "C(<tool_call>\n)"},
  };
  for (const auto& [text, expected] : kCases) expect_everywhere(xml(), text, expected);
}

TEST(OutputParser, Reasoning) {
  const OutputParserOptions inside{ToolCallFormat::kHermesJson, true, true};
  const OutputParserOptions may{ToolCallFormat::kHermesJson, true, false};
  const OutputParserOptions plain{ToolCallFormat::kNone, true, true};
  const std::pair<const char*, const char*> kInside[] = {
      {"rr\n</think>\n\nYo", "R(rr)C(Yo)"},
      {"\nr\nr \n\n</think>Yo\n", "R(r\nr )C(Yo\n)"},
      {"<think>\nrr\n</think>\n\nYo", "R(rr)C(Yo)"},
      {"rr", "R(rr)"},
      {"rr\n", "R(rr\n)"},
      {"r</thin", "R(r</thin)"},
      {"</think>\n\nYo", "C(Yo)"},
      {"r</think>a</think>b", "R(r)C(a</think>b)"},
      {"r <tool_call>x</tool_call>\n</think>\n\n<tool_call>{\"name\": \"f\", \"arguments\": "
       "{}}</tool_call>",
       "R(r <tool_call>x</tool_call>)T(f {})"},
      {"r\n</think>\n\nLet me.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n",
       "R(r)C(Let me.)T(f {})"},
      {"", ""},
  };
  for (const auto& [text, expected] : kInside) expect_everywhere(inside, text, expected);
  const std::pair<const char*, const char*> kMay[] = {
      {"Yo", "C(Yo)"},
      {"  Yo", "C(  Yo)"},
      {"<think>\nrr\n</think>\n\nYo", "R(rr)C(Yo)"},
      {"\n<think>rr</think>Yo", "R(rr)C(Yo)"},
      {"<thin", "C(<thin)"},
      {"a <think>b</think>", "C(a <think>b</think>)"},
  };
  for (const auto& [text, expected] : kMay) expect_everywhere(may, text, expected);
  expect_everywhere(plain, "r\n</think>\n\n<tool_call>{}</tool_call> \n",
                    "R(r)C(<tool_call>{}</tool_call> \n)");
}

TEST(OutputParser, ContentStreamsWithoutDelay) {
  OutputParser parser(hermes(), nullptr);
  std::vector<OutputEvent> events;
  parser.feed("Hello", events);
  EXPECT_EQ(shown(events), "C(Hello)");
  parser.feed(" wor <tool", events);
  EXPECT_EQ(shown(events), "C(Hello wor)");
  parser.feed("box>", events);
  EXPECT_EQ(shown(events), "C(Hello wor <toolbox>)");
}

TEST(OutputParser, RunawayCallsStayLinear) {
  for (const auto& options : {hermes(), xml()}) {
    OutputParser parser(options, nullptr);
    std::vector<OutputEvent> events;
    std::string piece = "<tool_call><function=a><parameter=b>\"";
    size_t fed = 0;
    for (int i = 0; i < 30'000; ++i) {
      parser.feed(piece, events);
      fed += piece.size();
    }
    parser.finish(events);
    size_t got = 0;
    for (const OutputEvent& event : events) got += event.text.size();
    EXPECT_EQ(got, fed);
  }
  const std::string deep(1'000'000, '[');
  EXPECT_EQ(parse(hermes(), {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": " + deep +
                             "}}</tool_call>"})
                .substr(0, 2),
            "C(");
  EXPECT_EQ(
      parse(xml(), {"<function=f><parameter=a>", deep, "</parameter></function>"}).substr(0, 4),
      "T(f ");
}

TEST(OutputParser, FormatComesFromTheTemplate) {
  EXPECT_EQ(detect_tool_call_format("… <function=example> … <tool_call>"),
            ToolCallFormat::kQwen3Xml);
  EXPECT_EQ(detect_tool_call_format("… <tool_call>\n{…} …"), ToolCallFormat::kHermesJson);
  EXPECT_EQ(detect_tool_call_format("{{ messages }}"), ToolCallFormat::kNone);
  EXPECT_EQ(to_string(ToolCallFormat::kQwen3Xml), "qwen3_xml");
}

}  // namespace
}  // namespace hotset
