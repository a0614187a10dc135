// SPDX-License-Identifier: Apache-2.0
// The stream: `pending_` is text that no event has taken yet. Whatever could still turn out to be a
// tag, or white space that belongs to one, is held back until more text or the end decides.
#include "chat/tool_call_parser.h"

#include <algorithm>
#include <array>

#include "chat/tool_call_body.h"

namespace hotset {
namespace {

constexpr std::string_view kThinkOpen = "<think>";
constexpr std::string_view kThinkClose = "</think>";
constexpr std::string_view kCallOpen = "<tool_call>";
constexpr std::string_view kCallClose = "</tool_call>";
constexpr std::string_view kFunctionOpen = "<function=";
constexpr std::string_view kNewlines = "\n";
constexpr std::string_view kBlanks = " \t\r\n";
// A call longer than this is taken for runaway text.
constexpr size_t kMaxCallBytes = size_t{4} << 20;

size_t without_trailing(std::string_view text, size_t end, std::string_view set) {
  while (end > 0 && set.find(text[end - 1]) != std::string_view::npos) --end;
  return end;
}

// Start of the longest end of `text` that is a proper beginning of `tag`.
size_t partial_tag(std::string_view text, std::string_view tag) {
  const size_t longest = std::min(text.size(), tag.size() - 1);
  for (size_t n = longest; n > 0; --n) {
    if (text.ends_with(tag.substr(0, n))) return text.size() - n;
  }
  return text.size();
}

}  // namespace

ToolCallFormat detect_tool_call_format(std::string_view template_source) {
  struct Row {
    std::string_view mark;
    ToolCallFormat format;
  };
  static constexpr std::array<Row, 2> kTable = {{
      {"<function=", ToolCallFormat::kQwen3Xml},
      {"<tool_call>", ToolCallFormat::kHermesJson},
  }};
  for (const Row& row : kTable) {
    if (template_source.find(row.mark) != std::string_view::npos) return row.format;
  }
  return ToolCallFormat::kNone;
}

std::string_view to_string(ToolCallFormat format) {
  switch (format) {
    case ToolCallFormat::kHermesJson:
      return "hermes";
    case ToolCallFormat::kQwen3Xml:
      return "qwen3_xml";
    case ToolCallFormat::kNone:
      break;
  }
  return "none";
}

struct OutputParser::Impl {
  enum class State { kStart, kReasoning, kContent, kCall, kAfterCall };

  Impl(const OutputParserOptions& given, const nlohmann::ordered_json& tools)
      : options(given), types(tools) {
    if (options.starts_in_reasoning) options.parses_reasoning = true;
    if (!options.parses_reasoning) state = State::kContent;
  }

  void drain(bool is_final, std::vector<OutputEvent>& out);
  // Each takes what it can from `pending`; false when it needs more text.
  bool start(bool is_final);
  bool reasoning(bool is_final, std::vector<OutputEvent>& out);
  bool content(bool is_final, std::vector<OutputEvent>& out);
  bool call(bool is_final, std::vector<OutputEvent>& out);
  bool hermes_call(bool is_final, std::vector<OutputEvent>& out);
  bool xml_call(bool is_final, std::vector<OutputEvent>& out);
  bool after_call(bool is_final);

  [[nodiscard]] std::pair<size_t, size_t> find_opener() const;
  void emit(OutputEvent::Kind kind, std::string_view text, std::vector<OutputEvent>& out);
  void emit_call(ToolCall tool_call, size_t end, std::vector<OutputEvent>& out);
  void return_as_content(size_t end, std::vector<OutputEvent>& out);
  bool drop_leading();

  OutputParserOptions options;
  ParameterTypes types;
  State state = State::kStart;
  std::string pending;
  std::string_view dropping;  // characters that do not count at the front of what comes
  std::string held_blanks;    // white space before a call, given back when it is none
  HermesScanner hermes;
  XmlScanner xml;
  bool ends_at_first_tag = false;  // at the end of the output: a tag within a string closes, too
};

OutputParser::OutputParser(const OutputParserOptions& options, const nlohmann::ordered_json& tools)
    : impl_(std::make_unique<Impl>(options, tools)) {}
OutputParser::~OutputParser() = default;
OutputParser::OutputParser(OutputParser&&) noexcept = default;
OutputParser& OutputParser::operator=(OutputParser&&) noexcept = default;

void OutputParser::feed(std::string_view piece, std::vector<OutputEvent>& out) {
  impl_->pending += piece;
  impl_->drain(false, out);
}

void OutputParser::finish(std::vector<OutputEvent>& out) {
  impl_->drain(true, out);
}

void OutputParser::Impl::drain(bool is_final, std::vector<OutputEvent>& out) {
  bool goes_on = true;
  while (goes_on) {
    switch (state) {
      case State::kStart:
        goes_on = start(is_final);
        break;
      case State::kReasoning:
        goes_on = reasoning(is_final, out);
        break;
      case State::kContent:
        goes_on = content(is_final, out);
        break;
      case State::kCall:
        goes_on = call(is_final, out);
        break;
      case State::kAfterCall:
        goes_on = after_call(is_final);
        break;
    }
  }
}

void OutputParser::Impl::emit(OutputEvent::Kind kind, std::string_view text,
                              std::vector<OutputEvent>& out) {
  if (text.empty()) return;
  if (!out.empty() && out.back().kind == kind && kind != OutputEvent::Kind::kToolCall) {
    out.back().text += text;
  } else {
    out.push_back({kind, std::string(text), {}, {}});
  }
}

// True when nothing but dropped characters is there yet.
bool OutputParser::Impl::drop_leading() {
  if (dropping.empty()) return false;
  pending.erase(0, std::min(pending.find_first_not_of(dropping), pending.size()));
  if (pending.empty()) return true;
  dropping = {};
  return false;
}

// A leading <think> opens reasoning; where the prompt has opened it, a second one is dropped.
bool OutputParser::Impl::start(bool is_final) {
  const size_t at = skip_blanks(pending, 0);
  const TagMatch match = match_tag(pending, at, kThinkOpen);
  if (match == TagMatch::kPartial && !is_final) return false;
  if (match == TagMatch::kYes) pending.erase(0, at + kThinkOpen.size());
  const bool reasons = match == TagMatch::kYes || options.starts_in_reasoning;
  state = reasons ? State::kReasoning : State::kContent;
  if (reasons) dropping = kNewlines;
  return true;
}

bool OutputParser::Impl::reasoning(bool is_final, std::vector<OutputEvent>& out) {
  if (drop_leading()) return false;
  const size_t close = pending.find(kThinkClose);
  const bool closes = close != std::string::npos;
  size_t end = closes ? close : is_final ? pending.size() : partial_tag(pending, kThinkClose);
  if (closes || !is_final) end = without_trailing(pending, end, kNewlines);
  emit(OutputEvent::Kind::kReasoning, std::string_view(pending).substr(0, end), out);
  if (!closes) {
    pending.erase(0, end);
    return false;
  }
  pending.erase(0, close + kThinkClose.size());
  dropping = kNewlines;
  state = State::kContent;
  return true;
}

// Where the next call opens, and up to where text surely is no call.
std::pair<size_t, size_t> OutputParser::Impl::find_opener() const {
  size_t opener = std::string::npos;
  size_t sure = pending.size();
  if (options.format == ToolCallFormat::kNone) return {opener, sure};
  const auto look_for = [&](std::string_view tag) {
    opener = std::min(opener, pending.find(tag));
    sure = std::min(sure, partial_tag(pending, tag));
  };
  look_for(kCallOpen);
  if (options.format == ToolCallFormat::kQwen3Xml) look_for(kFunctionOpen);
  return {opener, sure};
}

bool OutputParser::Impl::content(bool is_final, std::vector<OutputEvent>& out) {
  if (drop_leading()) return false;
  const auto [opener, sure] = find_opener();
  const bool opens = opener != std::string::npos;
  size_t end = opens ? opener : is_final ? pending.size() : sure;
  const size_t text_end = end;
  const bool holds_blanks = options.format != ToolCallFormat::kNone && (opens || !is_final);
  if (holds_blanks) end = without_trailing(pending, end, kBlanks);
  emit(OutputEvent::Kind::kContent, std::string_view(pending).substr(0, end), out);
  if (!opens) {
    pending.erase(0, end);
    return false;
  }
  held_blanks = pending.substr(end, text_end - end);
  pending.erase(0, opener);
  hermes = {};
  xml = {};
  state = State::kCall;
  return true;
}

bool OutputParser::Impl::call(bool is_final, std::vector<OutputEvent>& out) {
  const bool more = options.format == ToolCallFormat::kQwen3Xml ? xml_call(is_final, out)
                                                                : hermes_call(is_final, out);
  if (!more && pending.size() > kMaxCallBytes) {
    return_as_content(pending.size(), out);
    return true;
  }
  return more;
}

void OutputParser::Impl::emit_call(ToolCall tool_call, size_t end, std::vector<OutputEvent>& out) {
  OutputEvent event;
  event.kind = OutputEvent::Kind::kToolCall;
  event.name = std::move(tool_call.name);
  event.arguments = std::move(tool_call.arguments);
  out.push_back(std::move(event));
  pending.erase(0, end);
  held_blanks.clear();
  state = State::kAfterCall;
}

void OutputParser::Impl::return_as_content(size_t end, std::vector<OutputEvent>& out) {
  emit(OutputEvent::Kind::kContent, held_blanks, out);
  emit(OutputEvent::Kind::kContent, std::string_view(pending).substr(0, end), out);
  held_blanks.clear();
  pending.erase(0, end);
  state = State::kContent;
}

bool OutputParser::Impl::hermes_call(bool is_final, std::vector<OutputEvent>& out) {
  size_t close = ends_at_first_tag ? pending.find(kCallClose) : hermes.find_end(pending);
  if (close == std::string::npos) {
    if (!is_final) return false;
    // A quote too many hides the closing tag from the scanner: take the first one after all.
    ends_at_first_tag = true;
    close = pending.find(kCallClose);
  }
  const bool closed = close != std::string::npos;
  const size_t body_end = closed ? close : pending.size();
  const size_t end = closed ? close + kCallClose.size() : pending.size();
  const std::string_view body(pending.data() + kCallOpen.size(), body_end - kCallOpen.size());
  if (auto parsed = parse_hermes_body(body)) {
    emit_call(std::move(*parsed), end, out);
  } else {
    return_as_content(end, out);
  }
  return true;
}

bool OutputParser::Impl::xml_call(bool is_final, std::vector<OutputEvent>& out) {
  switch (xml.advance(pending)) {
    case XmlScanner::Progress::kDone:
      emit_call(xml.take(types), xml.end(), out);
      return true;
    case XmlScanner::Progress::kMalformed:
      return_as_content(pending.starts_with(kCallOpen) ? kCallOpen.size() : kFunctionOpen.size(),
                        out);
      return true;
    case XmlScanner::Progress::kNeedMore:
      break;
  }
  if (is_final) return_as_content(pending.size(), out);
  return is_final;
}

// The closing tag of an XML-style call comes after its last function.
bool OutputParser::Impl::after_call(bool is_final) {
  dropping = kBlanks;
  if (options.format == ToolCallFormat::kQwen3Xml) {
    const size_t at = skip_blanks(pending, 0);
    const TagMatch match = match_tag(pending, at, kCallClose);
    if (match == TagMatch::kPartial && !is_final) return false;
    if (match == TagMatch::kYes) pending.erase(0, at + kCallClose.size());
  }
  state = State::kContent;
  return true;
}

}  // namespace hotset
