// SPDX-License-Identifier: Apache-2.0
// Parsing once, rendering often; the marks of the output become segments.
#include "chat/jinja/template.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "chat/jinja/interpreter.h"
#include "chat/jinja/parser.h"

namespace hotset {
namespace {

Rendered to_rendered(const jinja::Text& text) {
  Rendered out;
  out.text = text.view();
  size_t at = 0;
  for (const jinja::Span& span : text.spans()) {
    if (span.begin > at) out.segments.push_back({at, span.begin - at, true});
    out.segments.push_back({span.begin, span.end - span.begin, false});
    at = span.end;
  }
  if (at < out.text.size()) out.segments.push_back({at, out.text.size() - at, true});
  return out;
}

}  // namespace

Result<Template> Template::parse(std::string_view source, const TemplateLimits& limits) {
  auto program = jinja::parse_program(source, limits);
  if (!program) {
    return fail(fmt::format("chat template: {}", program.error().message), program.error().kind);
  }
  return Template(std::make_shared<const jinja::Program>(std::move(*program)));
}

Result<Rendered> Template::render(const nlohmann::ordered_json& context,
                                  const RenderLimits& limits) const {
  return render(context, nlohmann::ordered_json::object(), limits);
}

Result<Rendered> Template::render(const nlohmann::ordered_json& context,
                                  const nlohmann::ordered_json& trusted_context,
                                  const RenderLimits& limits) const {
  jinja::Budget budget(limits);
  jinja::Interpreter interpreter(*program_, budget);
  HS_RETURN_IF_ERROR(interpreter.define(trusted_context, true));
  HS_RETURN_IF_ERROR(interpreter.define(context, false));
  HS_ASSIGN_OR_RETURN(const jinja::Text text, interpreter.run());
  if (budget.exceeded()) {
    return fail(fmt::format("the render was stopped: {}", budget.reason()), ErrorKind::kResource);
  }
  return to_rendered(text);
}

}  // namespace hotset
