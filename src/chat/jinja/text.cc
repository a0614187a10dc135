// SPDX-License-Identifier: Apache-2.0
// Text: marks follow every cut and join by arithmetic on sorted byte ranges.
#include "chat/jinja/text.h"

#include <algorithm>
#include <cstring>

namespace hotset::jinja {
namespace {

constexpr size_t kTextOverheadBytes = 112;  // control block and fields of one shared text

size_t count_chars(std::string_view bytes) {
  return static_cast<size_t>(std::count_if(bytes.begin(), bytes.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

}  // namespace

Text::Text(std::string bytes, std::vector<Span> spans, Budget* budget) {
  if (bytes.empty()) return;
  auto rep = std::make_shared<Rep>();
  rep->num_chars = count_chars(bytes);
  rep->charge = Charge(budget, kTextOverheadBytes + bytes.size() + spans.size() * sizeof(Span));
  if (budget != nullptr) budget->spend(1 + bytes.size() / 64 + spans.size() / 4);
  rep->bytes = std::move(bytes);
  rep->spans = std::move(spans);
  rep_ = std::move(rep);
}

Text Text::trusted(std::string_view bytes, Budget* budget) {
  return Text(std::string(bytes), {}, budget);
}

Text Text::untrusted(std::string_view bytes, Budget* budget) {
  return Text(std::string(bytes), {Span{0, bytes.size()}}, budget);
}

const std::vector<Span>& Text::spans() const {
  static const std::vector<Span> kNone;
  return rep_ ? rep_->spans : kNone;
}

Text Text::slice(size_t begin, size_t end, Budget* budget) const {
  if (begin >= end) return {};
  if (begin == 0 && end == num_bytes()) return *this;
  std::vector<Span> cut;
  const auto& all = spans();
  auto it = std::partition_point(all.begin(), all.end(),
                                 [&](const Span& span) { return span.end <= begin; });
  for (; it != all.end() && it->begin < end; ++it) {
    cut.push_back({std::max(it->begin, begin) - begin, std::min(it->end, end) - begin});
  }
  return Text(std::string(view().substr(begin, end - begin)), std::move(cut), budget);
}

size_t Text::byte_of_char(size_t index) const {
  if (index >= num_chars()) return num_bytes();
  if (is_ascii()) return index;
  const std::string_view bytes = view();
  size_t at = 0;
  for (size_t i = 0; i < index && at < bytes.size(); ++i) at += utf8_length(bytes[at]);
  return std::min(at, bytes.size());
}

size_t Text::char_of_byte(size_t offset) const {
  return is_ascii() ? offset : count_chars(view().substr(0, offset));
}

// While the buffer moves, its old and its new memory are both alive, so both must fit the budget.
void TextBuilder::grow(size_t bytes_needed) {
  const size_t old_capacity = bytes_.capacity();
  if (bytes_needed <= old_capacity || budget_->exceeded()) return;
  const size_t capacity = std::max(bytes_needed, old_capacity + old_capacity / 2);
  if (!budget_->can_hold(capacity)) {
    budget_->refuse("too much memory");
    return;
  }
  bytes_.reserve(capacity);
  charge_.add(bytes_.capacity() - old_capacity);
}

void TextBuilder::append(std::string_view bytes, bool untrusted) {
  if (bytes.empty()) return;
  if (budget_ != nullptr) {
    if (bytes.size() > max_bytes_ || bytes_.size() > max_bytes_ - bytes.size()) {
      budget_->refuse("too much output");
    }
    budget_->spend(bytes.size() / 64);
    grow(bytes_.size() + bytes.size());
    if (budget_->exceeded()) return;
  }
  const size_t begin = bytes_.size();
  bytes_.append(bytes);
  if (!untrusted) return;
  if (!spans_.empty() && spans_.back().end == begin) {
    spans_.back().end = bytes_.size();
  } else {
    charge_.add(sizeof(Span));
    spans_.push_back({begin, bytes_.size()});
  }
}

void TextBuilder::append(const Text& text, size_t begin, size_t end) {
  const std::string_view bytes = text.view();
  const auto& spans = text.spans();
  auto it = std::partition_point(spans.begin(), spans.end(),
                                 [&](const Span& span) { return span.end <= begin; });
  size_t at = begin;
  for (; it != spans.end() && it->begin < end; ++it) {
    const size_t from = std::max(it->begin, begin);
    const size_t to = std::min(it->end, end);
    append(bytes.substr(at, from - at), false);
    append(bytes.substr(from, to - from), true);
    at = to;
  }
  if (at < end) append(bytes.substr(at, end - at), false);
}

void TextBuilder::mark_all_untrusted() {
  if (!spans_.empty()) spans_.assign(1, Span{0, bytes_.size()});
}

Text TextBuilder::take() {
  charge_ = Charge(budget_, 0);  // the text holds its own
  Text out(std::move(bytes_), std::move(spans_), budget_);
  bytes_ = std::string();
  spans_.clear();
  return out;
}

char32_t decode_char(std::string_view bytes, size_t at) {
  const size_t length = std::min(utf8_length(bytes[at]), bytes.size() - at);
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(bytes[at + i]));
  };
  if (length == 1) return byte(0);
  char32_t code = byte(0) & (length == 2 ? 0x1fu : length == 3 ? 0x0fu : 0x07u);
  for (size_t i = 1; i < length; ++i) code = (code << 6) | (byte(i) & 0x3fu);
  return code;
}

bool is_space(char32_t c) {
  if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 28 && c <= 32);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t find_bytes(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  if (text.empty()) return std::string_view::npos;  // memmem does not take a null pointer
  const void* hit = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (hit == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(hit) - text.data());
}

}  // namespace hotset::jinja
