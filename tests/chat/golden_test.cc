// SPDX-License-Identifier: Apache-2.0
// The template engine against Python's jinja2 (tools/chat/make_golden.py wrote the expectations):
// whole conversations byte for byte, one small case per feature, and refusals.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "chat/chat_template.h"

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

Json read_json(const std::filesystem::path& path) {
  return Json::parse(read_file(path), nullptr, false);
}

ChatInput input_of(const Json& row) {
  ChatInput input;
  input.messages = row["messages"];
  input.tools = row["tools"];
  input.add_generation_prompt = row["add_generation_prompt"];
  if (row.contains("extra")) input.extra = row["extra"];
  return input;
}

void check_conversation(const ChatTemplate& chat, const Json& row, const Json& expected) {
  const auto rendered = chat.render(input_of(row));
  if (expected.contains("error")) {
    ASSERT_FALSE(rendered) << rendered->text;
    EXPECT_EQ(rendered.error().message, expected["error"].get<std::string>());
    return;
  }
  ASSERT_TRUE(rendered) << rendered.error().message;
  EXPECT_EQ(rendered->text, expected["text"].get<std::string>());
  size_t covered = 0;
  for (const RenderedSegment& segment : rendered->segments) {
    EXPECT_EQ(segment.offset, covered);
    EXPECT_GT(segment.length, 0u);
    covered += segment.length;
  }
  EXPECT_EQ(covered, rendered->text.size());
}

// Contents that are lists of parts are joined by us where HF's templates would drop them.
bool has_content_parts(const Json& row) {
  for (const Json& message : row["messages"]) {
    if (message.contains("content") && message["content"].is_array()) return true;
  }
  return false;
}

TEST(Golden, ConversationsRenderByteEqual) {
  const Json rows = read_json("golden/chat/conversations.json");
  ASSERT_TRUE(rows.is_array());
  ASSERT_GE(rows.size(), 30u);
  for (const char* name : {"qwen3_next_instruct", "qwen3_next_thinking", "qwen3_coder_next"}) {
    const auto chat = ChatTemplate::from_source(
        read_file(std::filesystem::path("golden/chat/templates") / (std::string(name) + ".jinja")));
    ASSERT_TRUE(chat) << chat.error().message;
    for (const Json& row : rows) {
      if (has_content_parts(row)) continue;
      SCOPED_TRACE(std::string(name) + ": " + row["name"].get<std::string>());
      check_conversation(*chat, row, row["rendered"][name]);
    }
  }
}

// "Error: 'x' is undefined" and the like name Python types; only that it is refused is compared,
// but a message of raise_exception has to come through.
TEST(Golden, CasesOfEveryFeature) {
  const Json rows = read_json("golden/chat/cases.json");
  ASSERT_TRUE(rows.is_array());
  ASSERT_GE(rows.size(), 150u);
  size_t refused = 0;
  for (const Json& row : rows) {
    SCOPED_TRACE(row["template"].get<std::string>());
    const auto compiled = Template::parse(row["template"].get<std::string>());
    if (row.contains("error")) {
      ++refused;
      const auto rendered =
          compiled ? compiled->render(row["context"]) : Result<Rendered>(fail(compiled.error()));
      EXPECT_FALSE(rendered) << "expected " << row["error"] << ", got: " << rendered->text;
      if (!rendered) {
        EXPECT_FALSE(rendered.error().message.empty());
        if (row["error"] == "TemplateError: my message") {
          EXPECT_EQ(rendered.error().message, "my message");
        } else {
          EXPECT_NE(rendered.error().message.find("line 1: "), std::string::npos)
              << rendered.error().message;
        }
      }
      continue;
    }
    if (!compiled) {
      ADD_FAILURE() << compiled.error().message;
      continue;
    }
    const auto rendered = compiled->render(row["context"]);
    if (!rendered) {
      ADD_FAILURE() << rendered.error().message;
      continue;
    }
    EXPECT_EQ(rendered->text, row["expected"].get<std::string>());
  }
  EXPECT_GE(refused, 50u);
}

TEST(Golden, DocumentedCoderExample) {
  const auto chat =
      ChatTemplate::from_source(read_file("golden/chat/templates/qwen3_coder_next.jinja"));
  ASSERT_TRUE(chat) << chat.error().message;
  ChatInput input;
  input.messages = Json::parse(R"([{"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Let me see.", "tool_calls":
      [{"function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"}}]},
    {"role": "tool", "content": "18C"}])");
  const auto rendered = chat->render(std::move(input));
  ASSERT_TRUE(rendered) << rendered.error().message;
  EXPECT_EQ(rendered->text,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nLet me see.\n\n<tool_call>\n"
            "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
            "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n18C\n</tool_response>\n"
            "<|im_end|>\n<|im_start|>assistant\n");
}

}  // namespace
}  // namespace hotset
