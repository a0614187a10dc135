// SPDX-License-Identifier: Apache-2.0
// Any bytes as a template, rendered with a fixed conversation under small budgets. The output's
// segments have to cover it.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "chat/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using Json = nlohmann::ordered_json;
  static const Json kContext = Json::parse(R"({"messages": [{"role": "system", "content": "Größe"},
    {"role": "user", "content": " a b\n"}, {"role": "assistant", "content": "", "tool_calls":
    [{"function": {"name": "f", "arguments": {"x": [1, 2.5, null, true]}}}]}],
    "tools": [{"type": "function", "function": {"name": "f"}}], "add_generation_prompt": true})");
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto compiled = hotset::Template::parse(source);
  if (!compiled) return 0;
  hotset::RenderLimits limits;
  limits.max_steps = 50'000;
  limits.max_output_bytes = size_t{1} << 20;
  limits.max_live_bytes = size_t{4} << 20;
  const auto rendered = compiled->render(kContext, limits);
  if (!rendered) return 0;
  size_t covered = 0;
  for (const hotset::RenderedSegment& segment : rendered->segments) {
    if (segment.offset != covered || segment.length == 0) std::abort();
    covered += segment.length;
  }
  if (covered != rendered->text.size() || covered > limits.max_output_bytes) std::abort();
  return 0;
}
