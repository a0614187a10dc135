// SPDX-License-Identifier: Apache-2.0
#include "conversation.h"

#include <utility>

namespace hotset {

Conversation::Conversation(const Dialect& dialect, const Tokenizer& tokenizer, std::string system)
    : dialect_(dialect), tokenizer_(tokenizer), system_(std::move(system)) {}

void Conversation::reset() {
  messages_ = Json::array();
  known_text_.clear();
  known_ids_.clear();
}

void Conversation::set_system(std::string system) {
  system_ = std::move(system);
  reset();
}

Result<std::vector<int32_t>> Conversation::ask(const std::string& text) {
  messages_.push_back({{"role", "user"}, {"content", text}});
  Json all = Json::array();
  if (!system_.empty()) all.push_back({{"role", "system"}, {"content", system_}});
  for (const Json& message : messages_) all.push_back(message);
  auto prompt = dialect_.render(all, Json::array(), Json::object());
  if (!prompt) {
    take_back();
    return fail(std::move(prompt).error());
  }
  auto ids = tokenize(*prompt);
  if (!ids) {
    take_back();
    return fail(std::move(ids).error());
  }
  prompt_ = std::move(prompt).value();
  prompt_ids_ = *ids;
  return ids;
}

// What begins with the known text gets the known ids, and only the rest is tokenized. The cut is
// harmless: the rest begins with the end of a turn, which no token spans.
Result<std::vector<int32_t>> Conversation::tokenize(const PromptText& prompt) const {
  size_t skip = 0;
  std::vector<int32_t> ids;
  if (!known_text_.empty() && prompt.text.starts_with(known_text_)) {
    skip = known_text_.size();
    ids = known_ids_;
  }
  std::vector<Segment> rest;
  size_t begin = 0;
  for (const auto& [length, is_trusted] : prompt.segments) {
    const size_t end = begin + length;
    const size_t from = std::max(begin, skip);
    if (from < end) {
      rest.push_back({std::string_view(prompt.text).substr(from, end - from), is_trusted});
    }
    begin = end;
  }
  HS_ASSIGN_OR_RETURN(const std::vector<int32_t> more, tokenizer_.tokenize_segments(rest));
  ids.insert(ids.end(), more.begin(), more.end());
  return ids;
}

std::unique_ptr<AnswerParser> Conversation::new_parser() const {
  return dialect_.new_parser(prompt_, Json::array());
}

void Conversation::add_answer(const std::string& content, const std::string& reasoning,
                              const std::vector<int32_t>& ids) {
  Json message = {{"role", "assistant"}, {"content", content}};
  if (!reasoning.empty()) message["reasoning_content"] = reasoning;
  messages_.push_back(std::move(message));
  known_text_ = prompt_.text + tokenizer_.detokenize(ids);
  known_ids_ = prompt_ids_;
  known_ids_.insert(known_ids_.end(), ids.begin(), ids.end());
}

void Conversation::take_back() {
  if (!messages_.empty()) messages_.erase(messages_.size() - 1);
}

}  // namespace hotset
