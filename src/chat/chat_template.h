// SPDX-License-Identifier: Apache-2.0
// The chat template of a checkpoint: found, parsed and probed once at start-up, rendered for each
// request. Rendering follows HF's apply_chat_template, with two repairs that servers need and the
// template's own behaviour decides about (see template_probe.h): tool-call arguments that arrive as
// a JSON string, and message contents that arrive as a list of text parts.
// Immutable after loading; any number of threads may render at once.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "chat/jinja/template.h"
#include "chat/template_probe.h"
#include "chat/tool_call_parser.h"

namespace hotset {

struct ChatInput {
  nlohmann::ordered_json messages;  // array of {role, content, …}
  nlohmann::ordered_json tools;     // array, or null: none
  bool add_generation_prompt = true;
  nlohmann::ordered_json extra = nlohmann::ordered_json::object();  // further template variables
};

class ChatTemplate {
 public:
  // chat_template.jinja wins over tokenizer_config.json's "chat_template"; the texts of the special
  // tokens come from the latter file.
  [[nodiscard]] static Result<ChatTemplate> load(const std::filesystem::path& checkpoint_dir,
                                                 const TemplateLimits& limits = {});
  // `special_tokens`: {"bos_token": "…", …}. `tool_source` (may be empty) is for requests with
  // tools.
  [[nodiscard]] static Result<ChatTemplate> from_source(
      std::string source, nlohmann::ordered_json special_tokens = nlohmann::ordered_json::object(),
      std::string tool_source = {}, const TemplateLimits& limits = {});

  // The template's own refusals (raise_exception) come back as errors with exactly their text.
  [[nodiscard]] Result<Rendered> render(ChatInput input, const RenderLimits& limits = {}) const;

  [[nodiscard]] const std::string& source() const { return main_.source; }
  [[nodiscard]] ToolCallFormat tool_call_format() const;
  // True when the prompt ends inside an opened <think>: the output starts with reasoning.
  [[nodiscard]] static bool opens_reasoning(const Rendered& prompt);

 private:
  struct Variant {
    std::string source;
    Template compiled;
    TemplateTraits traits;
  };
  ChatTemplate(Variant main, std::optional<Variant> with_tools, nlohmann::ordered_json tokens)
      : main_(std::move(main)), with_tools_(std::move(with_tools)), tokens_(std::move(tokens)) {}
  static Result<Variant> compile(std::string source, const nlohmann::ordered_json& tokens,
                                 const TemplateLimits& limits);

  Variant main_;
  std::optional<Variant> with_tools_;
  nlohmann::ordered_json tokens_;
};

}  // namespace hotset
