// SPDX-License-Identifier: Apache-2.0
// Finding a checkpoint's template, and calling it with what HF would pass.
#include "chat/chat_template.h"

#include <fmt/format.h>

#include <array>
#include <fstream>

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxConfigBytes = size_t{32} << 20;

// The whole file, or an error; a file that grows past the cap while it is read is refused too.
Result<std::string> read_capped(const std::filesystem::path& path, size_t max_bytes) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(fmt::format("{}: cannot be opened", path.string()), ErrorKind::kNotFound);
  std::string out;
  std::array<char, 65536> buffer;
  while (in.read(buffer.data(), buffer.size()) || in.gcount() > 0) {
    out.append(buffer.data(), static_cast<size_t>(in.gcount()));
    if (out.size() > max_bytes) {
      return fail(fmt::format("{}: has more than {} bytes", path.string(), max_bytes));
    }
  }
  if (in.bad()) return fail(fmt::format("{}: read error", path.string()), ErrorKind::kInternal);
  return out;
}

bool is_file(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

// "bos_token": "<s>" or {"content": "<s>", …}; absent and null ones stay undefined.
Json special_tokens(const Json& config) {
  static constexpr std::string_view kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                "pad_token", "cls_token", "mask_token"};
  Json out = Json::object();
  for (const std::string_view name : kNames) {
    const auto it = config.find(name);
    if (it == config.end()) continue;
    if (it->is_string()) out[std::string(name)] = *it;
    if (it->is_object() && it->contains("content") && (*it)["content"].is_string()) {
      out[std::string(name)] = (*it)["content"];
    }
  }
  return out;
}

struct Sources {
  std::string main;
  std::string with_tools;
};

// "chat_template": one string, or a list of {"name", "template"}.
Result<Sources> config_sources(const Json& config, const std::string& file) {
  const auto it = config.find("chat_template");
  if (it == config.end()) {
    return fail(fmt::format("{}: has no chat_template, and there is no chat_template.jinja", file),
                ErrorKind::kNotFound);
  }
  Sources out;
  if (it->is_string()) {
    out.main = it->get<std::string>();
    return out;
  }
  if (!it->is_array()) return fail(fmt::format("{}: chat_template is not a string", file));
  for (const Json& entry : *it) {
    if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string() ||
        !entry.contains("template") || !entry["template"].is_string()) {
      return fail(fmt::format("{}: chat_template entries need a name and a template", file));
    }
    const std::string name = entry["name"].get<std::string>();
    if (name == "default") out.main = entry["template"].get<std::string>();
    if (name == "tool_use") out.with_tools = entry["template"].get<std::string>();
  }
  if (out.main.empty()) return fail(fmt::format("{}: no chat_template is named default", file));
  return out;
}

}  // namespace

Result<ChatTemplate::Variant> ChatTemplate::compile(std::string source, const Json& tokens,
                                                    const TemplateLimits& limits) {
  HS_ASSIGN_OR_RETURN(Template compiled, Template::parse(source, limits));
  const TemplateTraits traits = probe_template(compiled, tokens);
  return Variant{std::move(source), std::move(compiled), traits};
}

Result<ChatTemplate> ChatTemplate::from_source(std::string source, Json tokens,
                                               std::string tool_source,
                                               const TemplateLimits& limits) {
  HS_ASSIGN_OR_RETURN(Variant main, compile(std::move(source), tokens, limits));
  std::optional<Variant> with_tools;
  if (!tool_source.empty()) {
    HS_ASSIGN_OR_RETURN(with_tools, compile(std::move(tool_source), tokens, limits));
  }
  return ChatTemplate(std::move(main), std::move(with_tools), std::move(tokens));
}

Result<ChatTemplate> ChatTemplate::load(const std::filesystem::path& checkpoint_dir,
                                        const TemplateLimits& limits) {
  const auto template_path = checkpoint_dir / "chat_template.jinja";
  const auto config_path = checkpoint_dir / "tokenizer_config.json";
  Json config = Json::object();
  if (is_file(config_path)) {
    HS_ASSIGN_OR_RETURN(const std::string text, read_capped(config_path, kMaxConfigBytes));
    config = Json::parse(text, nullptr, false);
    if (!config.is_object()) {
      return fail(fmt::format("{}: is not a JSON object", config_path.string()));
    }
  }
  Sources sources;
  std::string origin = template_path.string();
  if (is_file(template_path)) {
    HS_ASSIGN_OR_RETURN(sources.main, read_capped(template_path, limits.max_source_bytes));
  } else {
    origin = config_path.string();
    HS_ASSIGN_OR_RETURN(sources, config_sources(config, origin));
  }
  auto out = from_source(std::move(sources.main), special_tokens(config),
                         std::move(sources.with_tools), limits);
  if (!out) return fail(fmt::format("{}: {}", origin, out.error().message), out.error().kind);
  return out;
}

Result<Rendered> ChatTemplate::render(ChatInput input, const RenderLimits& limits) const {
  const bool has_tools = input.tools.is_array() && !input.tools.empty();
  const Variant& variant = has_tools && with_tools_ ? *with_tools_ : main_;
  HS_RETURN_IF_ERROR(prepare_messages(input.messages, input.tools, variant.traits));
  if (!input.extra.is_object() && !input.extra.is_null()) {
    return fail("chat_template_kwargs: an object is needed");
  }
  Json context = input.extra.is_object() ? std::move(input.extra) : Json::object();
  context["messages"] = std::move(input.messages);
  context["tools"] = std::move(input.tools);
  if (!context.contains("documents")) context["documents"] = nullptr;
  context["add_generation_prompt"] = input.add_generation_prompt;
  return variant.compiled.render(context, tokens_, limits);
}

ToolCallFormat ChatTemplate::tool_call_format() const {
  return detect_tool_call_format(with_tools_ ? with_tools_->source : main_.source);
}

bool ChatTemplate::opens_reasoning(const Rendered& prompt) {
  if (prompt.segments.empty() || !prompt.segments.back().is_trusted) return false;
  const RenderedSegment& last = prompt.segments.back();
  std::string_view tail = std::string_view(prompt.text).substr(last.offset, last.length);
  tail = tail.substr(0, tail.find_last_not_of(" \n") + 1);
  return tail.ends_with("<think>");
}

}  // namespace hotset
