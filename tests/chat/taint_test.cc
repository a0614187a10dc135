// SPDX-License-Identifier: Apache-2.0
// Text from outside stays marked through every operation, and the template's own text never is.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "chat/chat_template.h"

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;

// The rendering with «…» around what is not trusted.
std::string marked(const Rendered& rendered) {
  std::string out;
  for (const RenderedSegment& segment : rendered.segments) {
    const std::string piece = rendered.text.substr(segment.offset, segment.length);
    out += segment.is_trusted ? piece : "«" + piece + "»";
  }
  return out;
}

std::string render(std::string_view source, const Json& context) {
  const auto compiled = Template::parse(source);
  if (!compiled) return compiled.error().message;
  const auto rendered = compiled->render(context, Json{{"bos", "<s>"}});
  return rendered ? marked(*rendered) : rendered.error().message;
}

TEST(Taint, FollowsEveryOperation) {
  const Json context = {{"x", "  Ab é "},
                        {"l", {"p", "q"}},
                        {"role", "user"},
                        {"other", {{"role", "evil"}}},
                        {"m", {{"role", "user"}, {"content", "c"}}}};
  const std::pair<const char*, const char*> kCases[] = {
      {"a{{ x }}b", "a«  Ab é »b"},
      {"{{ x | trim }}", "«Ab é»"},
      {"{{ x.strip()[1:] }}", "«b é»"},
      {"{{ x[::-1] }}", "« é bA  »"},
      {"{{ 'a' + x.strip() + 'b' }}", "a«Ab é»b"},
      {"{{ ('a' ~ x.strip() ~ 'b')[:2] }}", "a«A»"},
      {"{{ ('a' ~ x.strip() ~ 'b')[::-1] }}", "b«é bA»a"},
      {"{{ l | join('-') }}", "«p»-«q»"},
      {"{{ '-'.join(l) }}", "«p»-«q»"},
      {"{{ 'a-b'.replace('-', l[0]) }}", "a«p»b"},
      {"{{ x.strip().replace('b', '-') }}", "«A»-« é»"},
      {"{{ x.strip() | upper }}", "«AB É»"},
      {"{{ ('k' ~ l[0]) | upper | capitalize }}", "K«p»"},
      {"{{ ('k ' ~ l[0] ~ ' z').split(' ') | join('+') }}", "k+«p»+z"},
      {"{{ l | tojson }}", "«[\"p\", \"q\"]»"},
      {"{{ ['a', 1] | tojson }}", "[\"a\", 1]"},
      {"{{ {'a': l[0]} | tojson }}", "«{\"a\": \"p\"}»"},
      {"{{ l }}", "[«'p'», «'q'»]"},
      {"{{ '%s=%s' % ('a', l[0]) }}", "a=«p»"},
      {"{{ '{}!'.format(l[0]) }}", "«p»!"},
      {"{{ l[0] * 2 }}{{ 'a' * 2 }}", "«pp»aa"},
      {"{% set y %}a{{ l[0] }}{% endset %}{{ y }}b", "a«p»b"},
      {"{% macro f(v) %}<{{ v }}>{% endmacro %}{{ f(l[1]) }}", "<«q»>"},
      {"{% set ns = namespace(v='') %}{% for i in l %}{% set ns.v = ns.v ~ i ~ ',' %}{% endfor "
       "%}{{ ns.v }}",
       "«p»,«q»,"},
      {"{% for k, v in m | items %}{{ k }}={{ v }};{% endfor %}", "«role»=user;«content»=«c»;"},
      {"{{ m.role }}{{ other.role }}", "user«evil»"},
      {"{{ bos }}{{ x | length }}{{ l | length == 2 }}", "<s>7True"},
      {"{{ 'a\nb' | indent(l[0]) }}", "a\n«p»b"},
      {"{{ (l[0] ~ '\n' ~ 'b') | indent(1) }}", "«p»\n b"},
      {"{{ l | map('upper') | join }}", "«PQ»"},
      {"{{ l | first ~ 'z' | title }}", "«p»Z"},
      {"{{ '<|im_end|>' if l else x }}", "<|im_end|>"},
  };
  for (const auto& [source, expected] : kCases)
    EXPECT_EQ(render(source, context), expected) << source;
}

TEST(Taint, SpecialTokensInMessagesAreNeverTrusted) {
  for (const char* name : {"qwen3_next_instruct", "qwen3_next_thinking", "qwen3_coder_next"}) {
    std::ifstream in("golden/chat/templates/" + std::string(name) + ".jinja");
    const auto chat = ChatTemplate::from_source(
        {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()});
    ASSERT_TRUE(chat) << chat.error().message;
    ChatInput input;
    input.messages =
        Json::parse(R"([{"role": "system", "content": "EVIL"}, {"role": "user", "content": "EVIL"},
      {"role": "assistant", "content": "EVIL", "reasoning_content": "EVIL",
       "tool_calls": [{"function": {"name": "EVIL", "arguments": {"EVIL": "EVIL"}}}]},
      {"role": "tool", "content": "EVIL"}])");
    input.tools =
        Json::parse(R"([{"type": "function", "function": {"name": "EVIL", "description": "EVIL",
      "parameters": {"type": "object", "properties": {"EVIL": {"type": "EVIL", "EVIL": "EVIL"}}}}}])");
    const auto rendered = chat->render(std::move(input));
    ASSERT_TRUE(rendered) << rendered.error().message;
    size_t seen = 0;
    for (const RenderedSegment& segment : rendered->segments) {
      const std::string piece = rendered->text.substr(segment.offset, segment.length);
      seen += piece.find("EVIL") != std::string::npos ? 1 : 0;
      if (segment.is_trusted) {
        EXPECT_EQ(piece.find("EVIL"), std::string::npos) << name << ": " << piece;
      } else {
        EXPECT_EQ(piece.find("<|im_"), std::string::npos) << name << ": " << piece;
      }
    }
    EXPECT_GE(seen, 7u);
  }
}

}  // namespace
}  // namespace hotset
