// SPDX-License-Identifier: Apache-2.0
// Any bytes as a model's output, in both call formats: whole and cut into pieces must give the same
// events. The first byte picks options and cuts.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "chat/tool_call_parser.h"

namespace {

std::string joined(const hotset::OutputParserOptions& options, std::string_view text,
                   size_t piece) {
  hotset::OutputParser parser(options, nullptr);
  std::vector<hotset::OutputEvent> events;
  for (size_t at = 0; at < text.size(); at += piece) parser.feed(text.substr(at, piece), events);
  parser.finish(events);
  std::string out;
  int last = -1;
  for (const auto& event : events) {
    const int kind = static_cast<int>(event.kind);
    if (kind != last || event.kind == hotset::OutputEvent::Kind::kToolCall) out += '\x01';
    out += event.text + event.name + '\x02' + event.arguments;
    if (event.kind != hotset::OutputEvent::Kind::kToolCall) out.pop_back();
    last = kind;
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  hotset::OutputParserOptions options;
  options.format =
      (data[0] & 1) != 0 ? hotset::ToolCallFormat::kHermesJson : hotset::ToolCallFormat::kQwen3Xml;
  options.parses_reasoning = (data[0] & 2) != 0;
  options.starts_in_reasoning = (data[0] & 4) != 0;
  const size_t piece = 1 + (data[0] >> 3);
  if (joined(options, text, piece) != joined(options, text, size)) std::abort();
  return 0;
}
