// SPDX-License-Identifier: Apache-2.0
// ICU orders combining marks by insertion, which is quadratic in a run of them; a run that no
// writing system has (kLongRun) is decomposed and sorted here first, which NFC leaves in place.
#include "tokenizer/nfc.h"

#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/utf8.h"

namespace hotset {
namespace {

constexpr size_t kLongRun = 64;

bool is_ascii(std::string_view text) {
  const char* at = text.data();
  size_t left = text.size();
  uint64_t word = 0;
  for (; left >= 8; left -= 8, at += 8) {
    std::memcpy(&word, at, 8);
    if ((word & 0x8080808080808080u) != 0) return false;
  }
  return std::none_of(at, at + left, [](char c) { return static_cast<uint8_t>(c) >= 0x80; });
}

const icu::Normalizer2& normalizer(bool compose) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* const found =
      compose ? icu::Normalizer2::getNFCInstance(status) : icu::Normalizer2::getNFDInstance(status);
  HS_CHECK(U_SUCCESS(status) && found != nullptr, "ICU has no normalization data: {}",
           u_errorName(status));
  return *found;
}

icu::StringPiece piece(std::string_view text) {
  return {text.data(), static_cast<int32_t>(text.size())};
}

// Does it start with a combining mark once decomposed? The great alphabets without any go first.
bool is_mark(UChar32 c) {
  if (c < 0x300 || (c >= 0x370 && c <= 0x482) || (c >= 0x3100 && c <= 0xa66e)) return false;
  if (c >= 0xac00 && c <= 0xfb1d) return false;
  return u_getIntPropertyValue(c, UCHAR_LEAD_CANONICAL_COMBINING_CLASS) != 0;
}

struct Mark {
  char32_t code;
  uint8_t combining_class;
};

// Sorts the run's decomposed characters by combining class, as canonical ordering does.
void append_ordered(std::u32string_view run, std::string& out) {
  const icu::Normalizer2& nfd = normalizer(false);
  std::vector<Mark> marks;
  const auto add = [&](UChar32 c) {
    marks.push_back({static_cast<char32_t>(c), u_getCombiningClass(c)});
  };
  for (const char32_t c : run) {
    icu::UnicodeString parts;
    if (nfd.getDecomposition(static_cast<UChar32>(c), parts)) {
      for (int32_t i = 0; i < parts.length(); i = parts.moveIndex32(i, 1)) add(parts.char32At(i));
    } else {
      add(static_cast<UChar32>(c));
    }
  }
  std::stable_sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) {
    return a.combining_class < b.combining_class;
  });
  for (const Mark& mark : marks) utf8_append(out, mark.code);
}

// The text with its long runs of combining marks in order; empty when it has none.
std::string order_long_runs(std::string_view text) {
  std::string out;
  std::u32string run;
  size_t run_begin = 0, copied = 0;
  const auto end_run = [&](size_t at) {
    if (run.size() >= kLongRun) {
      out += text.substr(copied, run_begin - copied);
      append_ordered(run, out);
      copied = at;
    }
    run.clear();
  };
  const auto size = static_cast<int32_t>(text.size());
  for (int32_t at = 0; at < size;) {
    const int32_t begin = at;
    UChar32 c = 0;
    U8_NEXT_UNSAFE(text.data(), at, c);
    if (is_mark(c)) {
      if (run.empty()) run_begin = static_cast<size_t>(begin);
      run.push_back(static_cast<char32_t>(c));
    } else if (!run.empty()) {
      end_run(static_cast<size_t>(begin));
    }
  }
  end_run(text.size());
  if (copied != 0) out += text.substr(copied);
  return out;
}

}  // namespace

std::string_view to_nfc(std::string_view text, std::string& buffer) {
  if (is_ascii(text)) return text;
  const icu::Normalizer2& nfc = normalizer(true);
  const std::string ordered = order_long_runs(text);
  const std::string_view source = ordered.empty() ? text : std::string_view(ordered);
  UErrorCode status = U_ZERO_ERROR;
  if (ordered.empty() && nfc.isNormalizedUTF8(piece(text), status)) return text;
  buffer.clear();
  icu::StringByteSink<std::string> sink(&buffer, static_cast<int32_t>(source.size()));
  nfc.normalizeUTF8(0, piece(source), sink, nullptr, status);
  HS_CHECK(U_SUCCESS(status), "ICU's NFC failed on {} bytes: {}", text.size(), u_errorName(status));
  return buffer;
}

}  // namespace hotset
