// SPDX-License-Identifier: Apache-2.0
#include "server/chat_dialect.h"

#include <fmt/format.h>

#include <random>
#include <utility>

#include "chat/chat_template.h"
#include "chat/tool_call_parser.h"

namespace hotset {
namespace {

std::string new_call_id() {
  thread_local std::random_device device;
  return fmt::format("call_{:08x}{:08x}{:08x}", device(), device(), device());
}

class TemplateParser : public AnswerParser {
 public:
  TemplateParser(const OutputParserOptions& options, const Json& tools) : parser_(options, tools) {}

  OutputPiece push(std::string_view text) override {
    events_.clear();
    parser_.feed(text, events_);
    return take_events();
  }
  OutputPiece finish() override {
    events_.clear();
    parser_.finish(events_);
    return take_events();
  }

 private:
  OutputPiece take_events() {
    OutputPiece piece;
    for (OutputEvent& event : events_) {
      switch (event.kind) {
        case OutputEvent::Kind::kReasoning:
          piece.reasoning += event.text;
          break;
        case OutputEvent::Kind::kContent:
          piece.content += event.text;
          break;
        case OutputEvent::Kind::kToolCall:
          piece.tool_calls.push_back(
              {num_calls_++, new_call_id(), std::move(event.name), std::move(event.arguments)});
          break;
      }
    }
    return piece;
  }

  OutputParser parser_;
  std::vector<OutputEvent> events_;
  size_t num_calls_ = 0;
};

class TemplateDialect : public Dialect {
 public:
  explicit TemplateDialect(const ChatTemplate& chat_template) : template_(chat_template) {}

  Result<PromptText> render(const Json& messages, const Json& tools,
                            const Json& extra) const override {
    ChatInput input;
    input.messages = messages;
    if (!tools.empty()) input.tools = tools;
    input.extra = extra;
    HS_ASSIGN_OR_RETURN(Rendered rendered, template_.render(std::move(input)));
    PromptText prompt;
    prompt.opens_reasoning = ChatTemplate::opens_reasoning(rendered);
    prompt.text = std::move(rendered.text);
    for (const auto& segment : rendered.segments) {
      prompt.segments.emplace_back(segment.length, segment.is_trusted);
    }
    return prompt;
  }

  // Without tools in the request, text that looks like a call is just text.
  std::unique_ptr<AnswerParser> new_parser(const PromptText& prompt,
                                           const Json& tools) const override {
    OutputParserOptions options;
    if (!tools.empty()) options.format = template_.tool_call_format();
    options.starts_in_reasoning = prompt.opens_reasoning;
    options.parses_reasoning = template_.source().find("</think>") != std::string::npos;
    return std::make_unique<TemplateParser>(options, tools);
  }

 private:
  const ChatTemplate& template_;
};

}  // namespace

std::unique_ptr<Dialect> make_chat_dialect(const ChatTemplate& chat_template) {
  return std::make_unique<TemplateDialect>(chat_template);
}

}  // namespace hotset
