// SPDX-License-Identifier: Apache-2.0
#include "synth_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/check.h"
#include "tokenizer/vocabulary.h"

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

// A space and three syllables: as many words as a vocabulary can have ids.
std::string made_up_word(int64_t number) {
  constexpr std::string_view kConsonants = "bcdfghjklmnpqrstvwxz", kVowels = "aeiou";
  std::string word;
  append_spelling(' ', word);
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
    std::string text;
    if (id < 256) {
      append_spelling(static_cast<uint8_t>(id), text);
    } else {
      text = made_up_word(id);
    }
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
