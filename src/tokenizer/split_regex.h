// SPDX-License-Identifier: Apache-2.0
// A split pattern from a file, run by PCRE2 with bounds on everything: a pattern that backtracks
// without end is refused at load where a probe shows it, and fails the text otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "base/result.h"

struct pcre2_real_code_8;

namespace hotset {

class SplitRegex {
 public:
  // \s means White_Space (PCRE2 would add U+180E). Patterns that match the empty string are
  // refused.
  static Result<SplitRegex> compile(std::string_view pattern);

  // One walk over one text: has the buffers that a match needs. Not to be shared between threads.
  class Walk {
   public:
    Walk(const SplitRegex& regex, std::string_view text);
    ~Walk();
    Walk(const Walk&) = delete;
    Walk& operator=(const Walk&) = delete;

    // The end of the piece that begins at `at` < text.size(): a match, or what lies before the next
    // match. `text` is valid UTF-8.
    Result<size_t> piece_end(size_t at);

   private:
    struct Buffers;
    // The end of a match that begins exactly at `at`; 0 for none.
    Result<size_t> match_at(size_t at);

    std::string_view text_;
    std::unique_ptr<Buffers> buffers_;
  };

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, FreeCode>;

  explicit SplitRegex(Code code) : code_(std::move(code)) {}
  static Result<Code> compile_code(std::string_view source, uint32_t extra_options);
  static Status probe(const pcre2_real_code_8* code);

  Code code_;
};

}  // namespace hotset
