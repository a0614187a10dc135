// SPDX-License-Identifier: Apache-2.0
// A model's text output, sorted while it streams in: reasoning up to </think>, content, tool calls.
// Text may be cut into pieces anywhere; the events, joined, do not depend on the cuts. A call is
// one event, given when it is complete; what looks like a call but is not one comes back as
// content, so no text of the model is lost (except white space around calls and around the end of
// reasoning). One parser serves one sequence; it is not shared between threads.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace hotset {

enum class ToolCallFormat {
  kNone,        // the template knows no tools: everything is content
  kHermesJson,  // <tool_call>{"name": …, "arguments": {…}}</tool_call>   (Qwen3-Next)
  kQwen3Xml,    // <tool_call><function=…><parameter=…>…</parameter></function></tool_call>
};

// From what the template tells the model to write.
[[nodiscard]] ToolCallFormat detect_tool_call_format(std::string_view template_source);
[[nodiscard]] std::string_view to_string(ToolCallFormat format);  // "none", "hermes", "qwen3_xml"

struct OutputEvent {
  enum class Kind { kReasoning, kContent, kToolCall };
  Kind kind = Kind::kContent;
  std::string text;       // kReasoning, kContent: append it to what came before
  std::string name;       // kToolCall
  std::string arguments;  // kToolCall: a JSON object as text
};

struct OutputParserOptions {
  ToolCallFormat format = ToolCallFormat::kNone;
  bool parses_reasoning = false;     // split at </think>; a leading <think> opens it
  bool starts_in_reasoning = false;  // the prompt already opened it (implies parses_reasoning)
};

class OutputParser {
 public:
  // `tools` (the request's array, or null) gives the types that XML parameters are converted to.
  OutputParser(const OutputParserOptions& options, const nlohmann::ordered_json& tools);
  ~OutputParser();
  OutputParser(OutputParser&&) noexcept;
  OutputParser& operator=(OutputParser&&) noexcept;

  // Appends what `piece` completed to `out`.
  void feed(std::string_view piece, std::vector<OutputEvent>& out);
  // The end of the output: gives what was held back.
  void finish(std::vector<OutputEvent>& out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hotset
