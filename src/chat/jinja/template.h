// SPDX-License-Identifier: Apache-2.0
// A chat template in the subset of Jinja that models' templates use, with the settings HF renders
// them with. Parsed once; immutable, so any number of threads may render it at once. A render is
// bounded in steps, memory, output and depth (RenderLimits) and needs about 512 KiB of stack.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "chat/jinja/limits.h"

namespace hotset {

namespace jinja {
struct Program;
}

// A stretch of rendered text with one origin. Text that came from messages, tools or arguments is
// not trusted: the tokenizer must not read special tokens in it.
struct RenderedSegment {
  size_t offset = 0;  // bytes
  size_t length = 0;
  bool is_trusted = true;
};

struct Rendered {
  std::string text;
  std::vector<RenderedSegment> segments;  // cover the text in order, without gaps
};

class Template {
 public:
  [[nodiscard]] static Result<Template> parse(std::string_view source,
                                              const TemplateLimits& limits = {});

  // `context` is an object of the names a request brings (messages, tools …); `trusted_context`
  // holds names whose strings count as the template's own (bos_token …). The request's win.
  [[nodiscard]] Result<Rendered> render(const nlohmann::ordered_json& context,
                                        const nlohmann::ordered_json& trusted_context,
                                        const RenderLimits& limits = {}) const;
  [[nodiscard]] Result<Rendered> render(const nlohmann::ordered_json& context,
                                        const RenderLimits& limits = {}) const;

 private:
  explicit Template(std::shared_ptr<const jinja::Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const jinja::Program> program_;
};

}  // namespace hotset
