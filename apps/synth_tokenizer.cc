// SPDX-License-Identifier: Apache-2.0
#include "synth_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/check.h"

namespace hotset {
namespace {

constexpr int64_t kPublishedFirst = 151643;
constexpr std::string_view kSpecialTokens[] = {"<|endoftext|>",
                                               "<|im_start|>",
                                               "<|im_end|>",
                                               "<|object_ref_start|>",
                                               "<|object_ref_end|>",
                                               "<|box_start|>",
                                               "<|box_end|>",
                                               "<|quad_start|>",
                                               "<|quad_end|>",
                                               "<|vision_start|>",
                                               "<|vision_end|>",
                                               "<|vision_pad|>",
                                               "<|image_pad|>",
                                               "<|video_pad|>",
                                               "<tool_call>",
                                               "</tool_call>",
                                               "<|fim_prefix|>",
                                               "<|fim_middle|>",
                                               "<|fim_suffix|>",
                                               "<|fim_pad|>",
                                               "<|repo_name|>",
                                               "<|file_sep|>",
                                               "<tool_response>",
                                               "</tool_response>",
                                               "<think>",
                                               "</think>"};

void append_utf8(uint32_t code, std::string& out) {
  if (code < 0x80) {
    out += static_cast<char>(code);
    return;
  }
  out += static_cast<char>(0xc0 | code >> 6);  // all are below 0x800
  out += static_cast<char>(0x80 | (code & 0x3f));
}

// How byte-level vocabularies spell a byte: printable ones of Latin-1 as they are, the others from
// U+0100 on, in their order.
std::string spelled_byte(uint32_t byte) {
  const auto is_printable = [](uint32_t b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  uint32_t code = byte;
  if (!is_printable(byte)) {
    code = 256;
    for (uint32_t b = 0; b < byte; ++b) code += is_printable(b) ? 0 : 1;
  }
  std::string out;
  append_utf8(code, out);
  return out;
}

// A space and three syllables: as many words as a vocabulary can have ids.
std::string made_up_word(int64_t number) {
  constexpr std::string_view kConsonants = "bcdfghjklmnpqrstvwxz", kVowels = "aeiou";
  std::string word = spelled_byte(' ');
  for (int64_t rest = number, i = 0; i < 3; ++i) {
    word += kConsonants[static_cast<size_t>(rest % 20)];
    word += kVowels[static_cast<size_t>(rest / 20 % 5)];
    rest /= 100;
  }
  return word;
}

}  // namespace

int64_t first_special_token(int64_t vocab_size) {
  return std::min(kPublishedFirst, vocab_size - std::ssize(kSpecialTokens));
}

std::string stand_in_tokenizer_json(int64_t vocab_size) {
  constexpr int64_t kMostWords = 1'000'000;
  const int64_t first = first_special_token(vocab_size);
  HS_CHECK(vocab_size >= 512 && first <= kMostWords, "a vocabulary of {}", vocab_size);
  std::string vocab;
  for (int64_t id = 0; id < first; ++id) {
    const std::string text = id < 256 ? spelled_byte(static_cast<uint32_t>(id)) : made_up_word(id);
    vocab += fmt::format("{}{}:{}", id == 0 ? "" : ",", nlohmann::json(text).dump(), id);
  }
  std::string added;
  for (int64_t i = 0; i < std::ssize(kSpecialTokens); ++i) {
    const std::string_view text = kSpecialTokens[i];
    added += fmt::format(
        R"({}{{"id":{},"content":"{}","single_word":false,"lstrip":false,"rstrip":false,)"
        R"("normalized":false,"special":{}}})",
        i == 0 ? "" : ",\n", first + i, text, text.starts_with("<|"));
  }
  constexpr std::string_view kByteLevel =
      R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false})";
  return fmt::format(
      R"({{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{}],
"normalizer":null,"pre_tokenizer":{},"post_processor":null,"decoder":{},
"model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"",)"
      R"("end_of_word_suffix":"","fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
"vocab":{{{}}},
"merges":[]}}}}
)",
      added, kByteLevel, kByteLevel, vocab);
}

std::string stand_in_tokenizer_config_json() {
  const nlohmann::ordered_json config = {{"add_bos_token", false},
                                         {"add_prefix_space", false},
                                         {"bos_token", nullptr},
                                         {"clean_up_tokenization_spaces", false},
                                         {"eos_token", "<|im_end|>"},
                                         {"pad_token", "<|endoftext|>"},
                                         {"tokenizer_class", "Qwen2Tokenizer"},
                                         {"unk_token", nullptr}};
  return config.dump(2) + "\n";
}

std::string stand_in_chat_template() {
  return R"({%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
)";
}

}  // namespace hotset
