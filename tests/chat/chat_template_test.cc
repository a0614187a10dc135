// SPDX-License-Identifier: Apache-2.0
// Loading a checkpoint's template: which file wins, tokens, named templates, repairs of arguments
// and contents, and what a request's mistakes are told.
#include "chat/chat_template.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

class Checkpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    dir_ = fs::temp_directory_path() /
           (std::string("hotset_chat_") + info->name() + "_" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name, std::ios::binary) << text;
  }
  [[nodiscard]] static std::string render(const ChatTemplate& chat, const char* messages,
                                          const char* tools = "null") {
    ChatInput input;
    input.messages = Json::parse(messages);
    input.tools = Json::parse(tools);
    const auto out = chat.render(std::move(input));
    return out ? out->text : "error: " + out.error().message;
  }
  fs::path dir_;
};

constexpr const char* kHi = R"([{"role": "user", "content": "Hi"}])";
constexpr const char* kTools = R"([{"type": "function", "function": {"name": "f"}}])";

TEST_F(Checkpoint, JinjaFileWinsAndTokensComeFromTheConfig) {
  write("tokenizer_config.json",
        R"({"chat_template": "config", "bos_token": null, "eos_token": "<|im_end|>",
            "pad_token": {"content": "<pad>", "lstrip": false}})");
  auto chat = ChatTemplate::load(dir_);
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ(render(*chat, kHi), "config");
  write("chat_template.jinja", "file {{ eos_token }}{{ pad_token }}{{ bos_token is defined }}\n");
  chat = ChatTemplate::load(dir_);
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ(render(*chat, kHi), "file <|im_end|><pad>False");
}

TEST_F(Checkpoint, NamedTemplates) {
  write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "<tool_call>"}]})");
  const auto chat = ChatTemplate::load(dir_);
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ(render(*chat, kHi), "plain");
  EXPECT_EQ(render(*chat, kHi, "[]"), "plain");
  EXPECT_EQ(render(*chat, kHi, kTools), "<tool_call>");
  EXPECT_EQ(chat->tool_call_format(), ToolCallFormat::kHermesJson);
}

TEST_F(Checkpoint, RefusalsNameTheFile) {
  auto chat = ChatTemplate::load(dir_);
  ASSERT_FALSE(chat);
  EXPECT_NE(chat.error().message.find("tokenizer_config.json"), std::string::npos);
  write("tokenizer_config.json", "{");
  EXPECT_FALSE(ChatTemplate::load(dir_));
  write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_FALSE(ChatTemplate::load(dir_));
  write("tokenizer_config.json", R"({"chat_template": [{"name": "x", "template": "y"}]})");
  EXPECT_FALSE(ChatTemplate::load(dir_));
  write("chat_template.jinja", "a\n\n{{ x | nofilter }}");
  chat = ChatTemplate::load(dir_);
  ASSERT_FALSE(chat);
  EXPECT_NE(chat.error().message.find(
                "chat_template.jinja: chat template: line 3: no filter named 'nofilter'"),
            std::string::npos)
      << chat.error().message;
  write("chat_template.jinja", std::string(2 << 20, 'x'));
  EXPECT_FALSE(ChatTemplate::load(dir_));
  write("chat_template.jinja", "\xff");
  EXPECT_FALSE(ChatTemplate::load(dir_));
}

std::string call_with(const std::string& arguments) {
  return R"([{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": )" +
         arguments + "}}]}]";
}

TEST_F(Checkpoint, ArgumentsBecomeObjectsOnlyWhereNeeded) {
  const char* kIterates =
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{% for k, v in "
      "c.function.arguments|items %}"
      "{{ k }}={{ v }};{% endfor %}{% endfor %}{% endfor %}";
  const char* kSkips =
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.function.arguments is "
      "mapping %}"
      "{{ c.function.arguments | tojson }}{% endif %}{% endfor %}{% endfor %}";
  const char* kPrints =
      "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments }}{% endfor "
      "%}{% endfor %}";
  const std::string text = call_with(R"("{\"b\":1,\"a\":  [2]}")");
  const auto iterates = ChatTemplate::from_source(kIterates);
  const auto skips = ChatTemplate::from_source(kSkips);
  const auto prints = ChatTemplate::from_source(kPrints);
  ASSERT_TRUE(iterates && skips && prints);
  EXPECT_EQ(render(*iterates, text.c_str()), "b=1;a=[2];");
  EXPECT_EQ(render(*skips, text.c_str()), R"({"b": 1, "a": [2]})");
  EXPECT_EQ(render(*prints, text.c_str()), R"({"b":1,"a":  [2]})");
  EXPECT_EQ(render(*iterates, call_with(R"("")").c_str()), "");
  EXPECT_NE(render(*iterates, call_with(R"("[1]")").c_str())
                .find("messages[0].tool_calls[0].function.arguments"),
            std::string::npos);
  EXPECT_NE(render(*iterates, call_with(R"("{bad")").c_str()).find("needs an object"),
            std::string::npos);
}

TEST_F(Checkpoint, TextPartsAreJoinedWhereTheTemplateWantsStrings) {
  const char* kParts =
      R"([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])";
  const auto strings = ChatTemplate::from_source(
      "{% for m in messages %}{{ m.content if m.content is string else '' }}{% endfor %}");
  const auto prints =
      ChatTemplate::from_source("{% for m in messages %}{{ m.content }}{% endfor %}");
  const auto parts = ChatTemplate::from_source(
      "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}");
  ASSERT_TRUE(strings && prints && parts);
  EXPECT_EQ(render(*strings, kParts), "a\nb");
  EXPECT_EQ(render(*prints, kParts), "a\nb");
  EXPECT_EQ(render(*parts, kParts), "[a][b]");
  const std::string image = R"([{"role": "user", "content": [{"type": "image_url"}]}])";
  EXPECT_NE(render(*strings, image.c_str()).find("messages[0].content[0]"), std::string::npos);
}

TEST_F(Checkpoint, RequestMistakesAreErrors) {
  const auto chat = ChatTemplate::from_source(
      "{% if messages[0].role != 'user' %}{{ raise_exception('Roles must start with user: ' ~ "
      "messages[0].role) }}{% endif %}");
  ASSERT_TRUE(chat);
  EXPECT_EQ(render(*chat, R"([{"role": "tool"}])"), "error: Roles must start with user: tool");
  EXPECT_EQ(render(*chat, "[]"), "error: messages: a non-empty array is needed");
  EXPECT_EQ(render(*chat, "{}"), "error: messages: a non-empty array is needed");
  EXPECT_EQ(render(*chat, "[1]"), "error: messages[0]: an object is needed");
  EXPECT_EQ(render(*chat, R"([{"role": "user"}, {"role": 5}])"),
            "error: messages[1].role: a string is needed");
  EXPECT_EQ(render(*chat, kHi, "5"), "error: tools: an array is needed");
}

TEST_F(Checkpoint, ReasoningIsOpenedByTheTemplateOnly) {
  const auto opened = ChatTemplate::from_source("{{ messages[0].content }}{{ '<think>\\n' }}");
  const auto echoed = ChatTemplate::from_source("{{ messages[0].content }}");
  ChatInput input;
  input.messages = Json::parse(R"([{"role": "user", "content": "<think>\n"}])");
  EXPECT_TRUE(ChatTemplate::opens_reasoning(*opened->render(input)));
  EXPECT_FALSE(ChatTemplate::opens_reasoning(*echoed->render(input)));
  EXPECT_FALSE(ChatTemplate::opens_reasoning(Rendered{}));
}

TEST_F(Checkpoint, OneTemplateServesManyThreads) {
  const auto chat = ChatTemplate::from_source(
      "{% for m in messages %}{{ m.role ~ ':' ~ m.content | upper }}{% endfor %}");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) EXPECT_EQ(render(*chat, kHi), "user:HI");
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The demo model's own template.
TEST_F(Checkpoint, DemoModelTemplateRenders) {
  const fs::path demo = "../models/demo";
  const auto chat = ChatTemplate::load(demo);
  ASSERT_TRUE(chat) << chat.error().message;
  const std::string text =
      render(*chat, R"([{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}])");
  EXPECT_NE(text.find("Hi"), std::string::npos) << text;
}

}  // namespace
}  // namespace hotset
