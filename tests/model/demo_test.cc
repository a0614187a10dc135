// SPDX-License-Identifier: Apache-2.0
// The model that the repository carries: greedy text equal to transformers', the fast arithmetic
// held against the exact one over the whole held-out text, right answers on held-out tasks, and the
// MTP head's drafts. (The exact arithmetic itself is held against transformers in
// reference_test.cc.)
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/elementwise.h"
#include "model/golden.h"
#include "model/language_model.h"
#include "tokenizer/tokenizer.h"

namespace hotset {
namespace {

const std::string kDemo = "../models/demo";
constexpr int64_t kWindow = 512;
constexpr size_t kMinPositions = 20000;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::unique_ptr<LanguageModel> load(ModelOptions options) {
  options.max_model_len = 4096;
  auto model = LanguageModel::load(kDemo, options, {});
  EXPECT_TRUE(model) << model.error().message;
  return model ? std::move(*model) : nullptr;
}

ModelOptions exact(cpu::Isa isa) {
  return {.isa = isa, .arithmetic = cpu::Arithmetic::kExact, .kv_type = KvType::kF32};
}
ModelOptions fast(cpu::Isa isa) {
  return {.isa = isa};
}

Tokenizer load_tokenizer() {
  auto tokenizer = Tokenizer::load(kDemo + "/tokenizer.json");
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return std::move(*tokenizer);
}

std::vector<int32_t> greedy(LanguageModel& model, std::span<const int32_t> prompt,
                            size_t max_tokens, int32_t stop_id) {
  std::vector<float> logits(static_cast<size_t>(model.vocab_size()));
  std::vector<int32_t> out;
  auto sequence = model.new_sequence(static_cast<int64_t>(prompt.size() + max_tokens));
  EXPECT_TRUE(sequence && model.extend(**sequence, prompt, logits));
  while (out.size() < max_tokens) {
    out.push_back(static_cast<int32_t>(argmax(logits)));
    if (out.back() == stop_id || out.size() == max_tokens) break;
    EXPECT_TRUE(model.extend(**sequence, std::span(&out.back(), 1), logits));
  }
  return out;
}

TEST(Demo, GreedyTextIsTransformersTextOver64Prompts) {
  const auto golden = golden::load("golden/demo/greedy.safetensors");
  ASSERT_TRUE(golden.count("greedy_ids"));
  const auto& offsets = golden.at("prompt_offsets").ints;
  const auto& prompts = golden.at("prompt_ids").ints;
  const auto& want = golden.at("greedy_ids").ints;
  const auto& margins = golden.at("margins").floats;
  ASSERT_EQ(offsets.size(), 65u);
  auto model = load(exact(cpu::detect_isa()));
  ASSERT_NE(model, nullptr);
  for (size_t p = 0; p < 64; ++p) {
    const auto begin = static_cast<size_t>(offsets[p]);
    const auto prompt =
        std::span(prompts).subspan(begin, static_cast<size_t>(offsets[p + 1]) - begin);
    const std::vector<int32_t> got = greedy(*model, prompt, 64, -1);
    const std::vector<int32_t> row(want.begin() + static_cast<std::ptrdiff_t>(64 * p),
                                   want.begin() + static_cast<std::ptrdiff_t>(64 * (p + 1)));
    const auto at =
        static_cast<size_t>(std::mismatch(row.begin(), row.end(), got.begin()).first - row.begin());
    EXPECT_EQ(at, 64u) << "prompt " << p << ", step " << at << ", reference's margin "
                       << margins[64 * p + std::min<size_t>(at, 63)];
  }
}

// Logits of the held-out text in windows, each a sequence of its own.
std::vector<float> text_logits(LanguageModel& model, std::span<const int32_t> ids) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(model.vocab_size()));
  float* to = logits.data();
  while (!ids.empty()) {
    const auto window = ids.first(std::min<size_t>(ids.size(), kWindow));
    const size_t count = window.size() * static_cast<size_t>(model.vocab_size());
    auto sequence = model.new_sequence(kWindow);
    EXPECT_TRUE(sequence && model.extend_all_logits(**sequence, window, {to, count}));
    to += count;
    ids = ids.subspan(window.size());
  }
  return logits;
}

// Uniform in (0, 1), the same on every machine (splitmix64).
class Uniform {
 public:
  explicit Uniform(uint64_t seed) : state_(seed) {}
  double next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (static_cast<double>((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
  }

 private:
  uint64_t state_;
};

// A draw from softmax(logits): the argmax of logits plus Gumbel noise.
int32_t draw(std::span<const float> logits, Uniform& uniform) {
  size_t best = 0;
  double best_value = -1e300;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double value = logits[i] - std::log(-std::log(uniform.next()));
    if (value > best_value) {
      best = i;
      best_value = value;
    }
  }
  return static_cast<int32_t>(best);
}

// What the model itself says, at temperature 1 in exact arithmetic: stories, one after another,
// until there are enough tokens. Each window is a sequence; predicts[i] counts the position when it
// predicts a token of an answer.
struct OwnText {
  std::vector<std::vector<int32_t>> windows;
  std::vector<std::vector<bool>> predicts;
  size_t num_positions = 0;
};

void tell_story(LanguageModel& model, std::span<const int32_t> prompt, int32_t end_id,
                Uniform& uniform, OwnText& out) {
  std::vector<float> logits(static_cast<size_t>(model.vocab_size()));
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  std::vector<bool> predicts(prompt.size() - 1, false);
  auto sequence = model.new_sequence(kWindow);
  ASSERT_TRUE(sequence && model.extend(**sequence, prompt, logits));
  while (ids.size() < static_cast<size_t>(kWindow)) {
    predicts.push_back(true);
    ids.push_back(draw(logits, uniform));
    if (ids.back() == end_id) break;
    ASSERT_TRUE(model.extend(**sequence, std::span(&ids.back(), 1), logits));
  }
  ids.pop_back();  // nothing is predicted from the last token
  out.num_positions += ids.size() - (prompt.size() - 1);
  out.windows.push_back(std::move(ids));
  out.predicts.push_back(std::move(predicts));
}

OwnText own_text(LanguageModel& model, const Tokenizer& tokenizer) {
  static constexpr const char* kAnimals[] = {"fox",  "dog",  "cat",  "owl",
                                             "bear", "wolf", "frog", "duck"};
  OwnText out;
  Uniform uniform(20261121);
  const int32_t end_id = *tokenizer.find("<|im_end|>");
  for (size_t i = 0; out.num_positions < kMinPositions && i < 1000; ++i) {
    const auto prompt = tokenizer.tokenize(fmt::format(
        "<|im_start|>user\nTell me a long story about a {}.<|im_end|>\n<|im_start|>assistant\n",
        kAnimals[i % std::size(kAnimals)]));
    tell_story(model, *prompt, end_id, uniform, out);
  }
  return out;
}

std::vector<float> own_text_logits(LanguageModel& model, const OwnText& text, size_t num_windows) {
  const auto vocab = static_cast<size_t>(model.vocab_size());
  std::vector<float> out;
  for (size_t w = 0; w < std::min(num_windows, text.windows.size()); ++w) {
    const std::vector<float> logits = text_logits(model, text.windows[w]);
    for (size_t i = 0; i < text.windows[w].size(); ++i) {
      if (!text.predicts[w][i]) continue;
      const auto row = std::span(logits).subspan(i * vocab, vocab);
      out.insert(out.end(), row.begin(), row.end());
    }
  }
  return out;
}

golden::LogitDifference report(const char* isa, const char* what, std::span<const float> want,
                               std::span<const float> got, int64_t vocab) {
  const auto difference = golden::compare_logits(want.first(got.size()), got, vocab);
  fmt::print("{}: {}, {} positions: mean KL {:.2e}, max KL {:.2e}, top-1 {:.3f} %\n", isa, what,
             difference.num_rows, difference.mean_kl, difference.max_kl, 100 * difference.top1);
  return difference;
}

// The scalar path is the same arithmetic bit for bit (kernels_test), so a tenth of the text will do
// there.
TEST(Demo, FastArithmeticIsCloseOnTheModelsOwnTextOnEveryIsa) {
  const Tokenizer tokenizer = load_tokenizer();
  auto reference = load(exact(cpu::detect_isa()));
  const OwnText text = own_text(*reference, tokenizer);
  ASSERT_GE(text.num_positions, kMinPositions);
  const std::vector<float> want = own_text_logits(*reference, text, text.windows.size());
  for (const cpu::Isa isa : cpu::available_isas()) {
    auto model = load(fast(isa));
    const size_t windows =
        isa == cpu::Isa::kScalar ? text.windows.size() / 10 : text.windows.size();
    const std::vector<float> got = own_text_logits(*model, text, windows);
    const auto difference = report(cpu::isa_name(isa), "own text", want, got, model->vocab_size());
    EXPECT_LE(difference.mean_kl, 1e-3) << cpu::isa_name(isa);
    EXPECT_GE(difference.top1, 0.99) << cpu::isa_name(isa);
  }
}

// Held-out conversations include users' random words and digits, where the likeliest token is one
// of many near-equals; there the distance counts, and the argmax is only reported.
TEST(Demo, FastArithmeticIsCloseOnTheHeldOutTextOnEveryIsa) {
  const Tokenizer tokenizer = load_tokenizer();
  const auto ids = tokenizer.tokenize(read_file(kDemo + "/heldout.txt"));
  ASSERT_TRUE(ids) << ids.error().message;
  ASSERT_GE(ids->size(), kMinPositions);
  const std::vector<float> want = text_logits(*load(exact(cpu::detect_isa())), *ids);
  for (const cpu::Isa isa : cpu::available_isas()) {
    auto model = load(fast(isa));
    const size_t count = isa == cpu::Isa::kScalar ? 4 * static_cast<size_t>(kWindow) : ids->size();
    const std::vector<float> got = text_logits(*model, std::span(*ids).first(count));
    const auto difference =
        report(cpu::isa_name(isa), "held-out text", want, got, model->vocab_size());
    EXPECT_LE(difference.mean_kl, 1e-3) << cpu::isa_name(isa);
    EXPECT_GE(difference.top1, 0.97) << cpu::isa_name(isa);
  }
}

struct Score {
  int right = 0;
  int asked = 0;
};

TEST(Demo, AnswersHeldOutTasks) {
  const Tokenizer tokenizer = load_tokenizer();
  const auto end_id = tokenizer.find("<|im_end|>");
  ASSERT_TRUE(end_id);
  auto model = load(fast(cpu::detect_isa()));
  ASSERT_NE(model, nullptr);
  std::map<std::string, Score> scores;
  for (const auto& item : nlohmann::json::parse(read_file(kDemo + "/heldout.json"))) {
    const std::string task = item.at("task");
    if (scores[task].asked == 40) continue;
    const auto prompt = tokenizer.tokenize(item.at("prompt").get<std::string>());
    const std::string expected = item.at("expected");
    ASSERT_TRUE(prompt) << prompt.error().message;
    std::vector<int32_t> answer = greedy(*model, *prompt, expected.size() + 8, *end_id);
    if (!answer.empty() && answer.back() == *end_id) answer.pop_back();
    scores[task].asked += 1;
    scores[task].right += tokenizer.detokenize(answer) == expected ? 1 : 0;
  }
  ASSERT_GE(scores.size(), 6u);
  for (const auto& [task, score] : scores) {
    fmt::print("{:<16} {} of {}\n", task, score.right, score.asked);
    EXPECT_GE(score.right, score.asked * 93 / 100) << task;
  }
}

// Acceptance of the first draft by teacher forcing: the head at token t says t+2, the trunk at t+1.
TEST(Demo, MtpDraftsAreMostlyWhatTheTrunkSays) {
  const Tokenizer tokenizer = load_tokenizer();
  const auto all = tokenizer.tokenize(read_file(kDemo + "/heldout.txt"));
  ASSERT_TRUE(all);
  ModelOptions options = fast(cpu::detect_isa());
  options.mtp = true;
  auto model = load(options);
  ASSERT_TRUE(model && model->has_mtp());
  const auto vocab = static_cast<size_t>(model->vocab_size());
  int64_t agreed = 0, count = 0;
  for (size_t at = 0; at + kWindow + 1 <= std::min<size_t>(all->size(), 8 * kWindow + 1);
       at += kWindow) {
    const auto ids = std::span(*all).subspan(at, kWindow);
    const auto next_ids = std::span(*all).subspan(at + 1, kWindow);
    std::vector<float> trunk(ids.size() * vocab), drafts(ids.size() * vocab);
    auto sequence = model->new_sequence(kWindow);
    ASSERT_TRUE(sequence && model->extend_all_logits(**sequence, ids, trunk));
    ASSERT_TRUE(model->draft_all_logits(**sequence, next_ids, drafts));
    for (size_t t = 0; t + 1 < ids.size(); ++t) {
      agreed += argmax(std::span(drafts).subspan(t * vocab, vocab)) ==
                argmax(std::span(trunk).subspan((t + 1) * vocab, vocab));
      ++count;
    }
  }
  fmt::print("first drafts accepted: {:.1f} % of {}\n", 100.0 * double(agreed) / double(count),
             count);
  EXPECT_GE(double(agreed), 0.6 * double(count));
}

// Greedy decoding that verifies one draft a step: two trunk tokens at once, back to the snapshot
// when the draft was wrong. The text must be that of plain greedy decoding.
TEST(Demo, GreedyTextIsTheSameWithMtpSpeculation) {
  const Tokenizer tokenizer = load_tokenizer();
  const auto prompt = tokenizer.tokenize(
      "<|im_start|>user\nTell me a story about a fox.<|im_end|>\n<|im_start|>assistant\n");
  ASSERT_TRUE(prompt);
  ModelOptions options = exact(cpu::detect_isa());
  options.mtp = true;
  auto model = load(options);
  ASSERT_TRUE(model && model->has_mtp());
  const std::vector<int32_t> want = greedy(*model, *prompt, 96, -1);

  const auto vocab = static_cast<size_t>(model->vocab_size());
  auto sequence = model->new_sequence(512);
  std::vector<float> logits(prompt->size() * vocab), drafts(prompt->size() * vocab);
  ASSERT_TRUE(sequence && model->extend_all_logits(**sequence, *prompt, logits));
  const auto last_of = [&](std::span<const float> rows) { return argmax(rows.last(vocab)); };
  std::vector<int32_t> got = {static_cast<int32_t>(last_of(logits))};
  std::vector<int32_t> next_ids(prompt->begin() + 1, prompt->end());
  next_ids.push_back(got.back());
  int accepted = 0, rejected = 0;
  while (got.size() < want.size()) {
    drafts.resize(next_ids.size() * vocab);
    ASSERT_TRUE(model->draft_all_logits(**sequence, next_ids, drafts));
    const auto draft = static_cast<int32_t>(last_of(drafts));
    auto saved = model->snapshot(**sequence);
    ASSERT_TRUE(saved) << saved.error().message;
    const int32_t both[] = {got.back(), draft};
    logits.resize(2 * vocab);
    ASSERT_TRUE(model->extend_all_logits(**sequence, both, logits));
    const auto truth = static_cast<int32_t>(argmax(std::span(logits).first(vocab)));
    if (truth == draft) {
      ++accepted;
      got.push_back(draft);
      got.push_back(static_cast<int32_t>(last_of(logits)));
      next_ids = {draft, got.back()};
      continue;
    }
    ++rejected;
    ASSERT_TRUE(model->restore(**sequence, **saved));
    logits.resize(vocab);
    ASSERT_TRUE(model->extend_all_logits(**sequence, std::span(both).first(1), logits));
    got.push_back(truth);
    next_ids = {truth};
  }
  got.resize(want.size());
  EXPECT_EQ(got, want);
  EXPECT_GT(accepted, rejected);
  EXPECT_GT(rejected, 0) << "nothing was ever rolled back; choose a less predictable prompt";
}

}  // namespace
}  // namespace hotset
