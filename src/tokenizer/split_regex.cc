// SPDX-License-Identifier: Apache-2.0
// Matches are anchored and tried character by character, so that PCRE2's match limit bounds the
// work at each start, and a clock bounds their sum.
#include "tokenizer/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <chrono>
#include <string>

namespace hotset {
namespace {

constexpr size_t kMaxPatternBytes = 4096;
constexpr uint32_t kMatchLimit = 50'000'000;  // backtracking steps of one match
constexpr uint32_t kHeapLimitKib = 64 * 1024;
constexpr size_t kJitStackStart = 32 * 1024, kJitStackMax = 4 * 1024 * 1024;

// The probe: texts of this length may take this many steps a match. Linear patterns take some
// thousands, quadratic ones millions.
constexpr size_t kProbeLength = 2048;
constexpr uint32_t kProbeMatchLimit = 64 * kProbeLength;

// A whole text may take this long. Honest patterns need some 40 ns a byte.
constexpr auto kBaseTime = std::chrono::seconds(2);
constexpr auto kTimePerByte = std::chrono::microseconds(2);

struct FreeContext {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, FreeContext>;

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR pointer(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

// \s and \S as the White_Space property. \Q…\E is left alone.
std::string with_unicode_space(std::string_view pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's' || escaped == 'S') {
      out += escaped == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
    } else if (escaped == 'Q') {
      const size_t end = pattern.find("\\E", i);
      out += pattern.substr(i - 1, end == std::string_view::npos ? end : end + 3 - i);
      i = end == std::string_view::npos ? pattern.size() : end + 1;
    } else {
      out += '\\';
      out += escaped;
    }
  }
  return out;
}

}  // namespace

void SplitRegex::FreeCode::operator()(pcre2_code* code) const {
  pcre2_code_free(code);
}

Result<SplitRegex> SplitRegex::compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return fail(
        fmt::format("the pattern has {} bytes, the limit is {}", pattern.size(), kMaxPatternBytes));
  }
  const std::string source = with_unicode_space(pattern);
  HS_ASSIGN_OR_RETURN(Code code, compile_code(source, 0));
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) return fail("the pattern can match the empty string");
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where it can't, the interpreter runs
  // Without the start optimizations, which hide the cost of a pattern from texts that can't match.
  HS_ASSIGN_OR_RETURN(const Code plain, compile_code(source, PCRE2_NO_START_OPTIMIZE));
  HS_RETURN_IF_ERROR(probe(plain.get()));
  return SplitRegex(std::move(code));
}

Result<SplitRegex::Code> SplitRegex::compile_code(std::string_view source, uint32_t extra_options) {
  const Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_parens_nest_limit(context.get(), 50);
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | extra_options;
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(pointer(source), source.size(), options, &error, &offset, context.get()));
  if (code == nullptr) {
    return fail(
        fmt::format("the pattern doesn't compile: {} (near byte {})", message_of(error), offset));
  }
  return code;
}

Status SplitRegex::probe(const pcre2_code* code) {
  static constexpr std::array kUnits = {"a", "A",      "1",      " ",      "\n", " \n", "'",
                                        "!", "\u00e9", "\u4e2d", "\u0301", "a1", "a ",  "ab"};
  const Owned<pcre2_match_context> context(pcre2_match_context_create(nullptr));
  const Owned<pcre2_match_data> data(pcre2_match_data_create(1, nullptr));
  pcre2_set_match_limit(context.get(), kProbeMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  for (const std::string_view unit : kUnits) {
    for (const std::string_view end : {"", "\u0001", "x", " "}) {
      std::string text;
      while (text.size() < kProbeLength) text += unit;
      text += end;
      const uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT | PCRE2_ANCHORED;
      const int rc =
          pcre2_match(code, pointer(text), text.size(), 0, options, data.get(), context.get());
      if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        return fail(
            fmt::format("the pattern takes too long on a run of '{}': {}", unit, message_of(rc)));
      }
    }
  }
  return {};
}

struct SplitRegex::Walk::Buffers {
  pcre2_code* code = nullptr;
  Owned<pcre2_match_context> context{pcre2_match_context_create(nullptr)};
  Owned<pcre2_match_data> data{pcre2_match_data_create(1, nullptr)};
  Owned<pcre2_jit_stack> stack{pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)};
  std::chrono::steady_clock::time_point deadline;
  uint32_t matches = 0;
};

SplitRegex::Walk::Walk(const SplitRegex& regex, std::string_view text)
    : text_(text), buffers_(std::make_unique<Buffers>()) {
  buffers_->code = regex.code_.get();
  pcre2_match_context* const context = buffers_->context.get();
  pcre2_set_match_limit(context, kMatchLimit);
  pcre2_set_heap_limit(context, kHeapLimitKib);
  pcre2_jit_stack_assign(context, nullptr, buffers_->stack.get());
  buffers_->deadline = std::chrono::steady_clock::now() + kBaseTime +
                       kTimePerByte * static_cast<int64_t>(text.size());
}

SplitRegex::Walk::~Walk() = default;

Result<size_t> SplitRegex::Walk::match_at(size_t at) {
  Buffers& b = *buffers_;
  if (++b.matches % 64 == 0 && std::chrono::steady_clock::now() > b.deadline) {
    return fail("the tokenizer's split pattern is too slow on this text", ErrorKind::kResource);
  }
  const auto match = [&](uint32_t options) {
    return pcre2_match(b.code, pointer(text_), text_.size(), at,
                       options | PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED, b.data.get(),
                       b.context.get());
  };
  int rc = match(0);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match(PCRE2_NO_JIT);
  if (rc == PCRE2_ERROR_NOMATCH) return 0;
  if (rc < 0) {
    return fail(
        fmt::format("the tokenizer's split pattern fails at byte {}: {}", at, message_of(rc)),
        ErrorKind::kResource);
  }
  const PCRE2_SIZE* const found = pcre2_get_ovector_pointer(b.data.get());
  return found[0] == at && found[1] > at ? found[1] : 0;  // \K moves the start: no match then
}

Result<size_t> SplitRegex::Walk::piece_end(size_t at) {
  size_t start = at;
  while (true) {
    HS_ASSIGN_OR_RETURN(const size_t end, match_at(start));
    if (end != 0) return start == at ? end : start;
    do {
      ++start;
    } while (start < text_.size() && (static_cast<uint8_t>(text_[start]) & 0xc0u) == 0x80u);
    if (start == text_.size()) return start;
  }
}

}  // namespace hotset
