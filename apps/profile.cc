// SPDX-License-Identifier: Apache-2.0
// hotset profile: lets a model read, counts which experts its layers choose, says what a cache of
// experts can make of it, and writes the counts for --expert-profile.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <utility>

#include "conversation.h"
#include "expert_profile.h"
#include "interrupt.h"
#include "kernels/elementwise.h"
#include "loaded_model.h"
#include "profile_text.h"
#include "progress.h"
#include "report_error.h"
#include "routing_report.h"
#include "server/strict_json.h"
#include "terminal.h"
#include "tokenizer/tokenizer.h"
#include "verbs.h"

namespace hotset {
namespace {

constexpr int64_t kContext = 4096;  // of each piece of a text, unless --max-model-len says

// Reads texts until so many tokens are computed, or until Ctrl-C.
class Reader {
 public:
  Reader(LoadedModel& model, const ProfileOptions& options)
      : model_(model),
        options_(options),
        chunk_(model.model->prefill_chunk()),
        logits_(static_cast<size_t>(model.model->vocab_size())),
        shows_progress_(!options.model.quiet && stderr_is_terminal()) {}

  Status read_all(const ProfileTexts& texts);
  [[nodiscard]] int64_t num_available() const { return num_available_; }
  [[nodiscard]] bool was_interrupted() const { return was_interrupted_; }

 private:
  [[nodiscard]] int64_t left() const {
    return was_interrupted_ ? 0 : options_.max_tokens - num_read_;
  }
  Status read(const std::string& text);
  Status answer(const std::string& question);
  Status extend(SequenceState& sequence, std::span<const int32_t> ids);
  [[nodiscard]] bool ends(int32_t id) const;

  LoadedModel& model_;
  const ProfileOptions& options_;
  const int64_t chunk_;
  std::vector<float> logits_;
  const bool shows_progress_;
  int64_t num_read_ = 0;
  int64_t num_available_ = 0;  // of texts, whether read or not
  Interrupts interrupts_;
  bool was_interrupted_ = false;
};

Status Reader::read_all(const ProfileTexts& texts) {
  if (!texts.questions.empty() && model_.dialect == nullptr) {
    return fail(
        fmt::format("{}: has no chat template for --prompt-file; use --text", model_.directory),
        ErrorKind::kUnsupported);
  }
  for (const std::string& text : texts.texts) HS_RETURN_IF_ERROR(read(text));
  for (const std::string& question : texts.questions) HS_RETURN_IF_ERROR(answer(question));
  if (shows_progress_) fmt::print(stderr, "\n");
  return {};
}

// Step by step, so that an interrupt need not wait for a whole text.
Status Reader::extend(SequenceState& sequence, std::span<const int32_t> ids) {
  while (!ids.empty()) {
    if (interrupts_.take()) was_interrupted_ = true;
    if (was_interrupted_) return {};
    const auto step = ids.first(static_cast<size_t>(std::min(chunk_, std::ssize(ids))));
    HS_RETURN_IF_ERROR(model_.model->extend(sequence, step, logits_));
    num_read_ += std::ssize(step);
    ids = ids.subspan(step.size());
    if (shows_progress_) {
      fmt::print(stderr, "\rreading: {} of at most {} tokens", num_read_, options_.max_tokens);
    }
  }
  return {};
}

// In pieces as long as the context, each from the start.
Status Reader::read(const std::string& text) {
  HS_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, model_.tokenizer->tokenize(text));
  num_available_ += std::ssize(ids);
  std::span<const int32_t> rest(ids);
  while (!rest.empty() && left() > 0) {
    const int64_t count = std::min({std::ssize(rest), model_.model->max_tokens(), left()});
    HS_ASSIGN_OR_RETURN(const auto sequence, model_.model->new_sequence(count));
    HS_RETURN_IF_ERROR(extend(*sequence, rest.first(static_cast<size_t>(count))));
    rest = rest.subspan(static_cast<size_t>(count));
  }
  return {};
}

bool Reader::ends(int32_t id) const {
  const std::vector<int32_t>& eos = model_.defaults.eos_ids;
  return std::find(eos.begin(), eos.end(), id) != eos.end();
}

// Greedily: the same profile for the same questions.
Status Reader::answer(const std::string& question) {
  if (left() <= 0) return {};
  Conversation conversation(*model_.dialect, *model_.tokenizer, /*system=*/"");
  HS_ASSIGN_OR_RETURN(std::vector<int32_t> ids, conversation.ask(question));
  const int64_t most = std::min(model_.model->max_tokens(), left());
  if (std::ssize(ids) > most) ids.resize(static_cast<size_t>(most));
  const int64_t end = std::min(most, std::ssize(ids) + options_.answer_tokens);
  HS_ASSIGN_OR_RETURN(const auto sequence, model_.model->new_sequence(end));
  HS_RETURN_IF_ERROR(extend(*sequence, ids));
  for (int64_t length = std::ssize(ids); length < end && !was_interrupted_; ++length) {
    const auto valid = std::span(logits_).first(static_cast<size_t>(model_.num_valid_tokens));
    const auto id = static_cast<int32_t>(argmax(valid));
    if (ends(id)) break;
    HS_RETURN_IF_ERROR(extend(*sequence, {&id, 1}));
  }
  return {};
}

struct Profiled {
  std::string model;
  std::string device;
  std::string text;  // "16,384 of 25,232 tokens of heldout.txt"
  RoutingReport report;
  ColdStart cold_start;
};

template <typename Rates>
Json rates_json(const Rates& rates) {
  Json json = Json::array();
  for (const auto rate : rates) json.push_back(rate);
  return json;
}

Json stats_json(const RoutingStats& stats) {
  return {{"entropy_bits", stats.entropy_bits},
          {"overlap", stats.overlap},
          {"most_popular_share", rates_json(stats.fixed)},
          {"lru_hit_rate", rates_json(stats.lru)},
          {"hotset_hit_rate", rates_json(stats.hotset)}};
}

void print_json(const Profiled& result, const std::string& output) {
  const RoutingReport& report = result.report;
  Json json{{"model", result.model},
            {"device", result.device},
            {"text", result.text},
            {"num_tokens", report.num_tokens},
            {"num_layers", report.shape.num_layers},
            {"num_experts", report.shape.num_experts},
            {"top_k", report.shape.top_k},
            {"cache_percents", rates_json(kCachePercents)},
            {"layers", Json::array()},
            {"mean", stats_json(mean_of(report.layers))},
            {"cold_start",
             {{"cache_percent", ColdStart::kPercent},
              {"num_tokens", result.cold_start.num_tokens},
              {"arbitrary_hit_rate", result.cold_start.arbitrary},
              {"seeded_hit_rate", result.cold_start.seeded}}}};
  for (const RoutingStats& stats : report.layers) {
    Json layer = stats_json(stats);
    layer["layer"] = stats.layer;
    json["layers"].push_back(std::move(layer));
  }
  if (!output.empty()) json["output"] = output;
  fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
}

void print_text(const Profiled& result) {
  fmt::print("{} on {}\n\n{}\n", result.model, result.device,
             routing_table(result.report, result.text, std::numeric_limits<int64_t>::max()));
  fmt::print(
      "most popular: the share of the choices that a fixed set of that many percent of a layer's\n"
      "experts takes; LRU, hotset: hit rates of caches of that size after a quarter of the "
      "text.\n");
  const ColdStart& start = result.cold_start;
  if (start.num_tokens > 0) {
    fmt::print(
        "The first {} tokens after a load, {} % of the experts cached: {:.1f} % hits with "
        "arbitrary "
        "experts,\n{:.1f} % with a profile of the first half of this text.\n",
        start.num_tokens, ColdStart::kPercent, 100 * start.arbitrary, 100 * start.seeded);
  }
}

// The counts so far, where they are to be added to; before anything is loaded.
Result<std::optional<RoutingProfile>> earlier_counts(const ProfileOptions& options) {
  if (options.output.empty()) {
    if (options.append) return fail("--append needs a file: -o FILE");
    return std::optional<RoutingProfile>();
  }
  HS_RETURN_IF_ERROR(check_folder_of(options.output, "--output"));
  std::error_code error;
  if (!options.append || !std::filesystem::exists(options.output, error)) {
    return std::optional<RoutingProfile>();
  }
  HS_ASSIGN_OR_RETURN(RoutingProfile profile, RoutingProfile::load(options.output));
  return std::optional<RoutingProfile>(std::move(profile));
}

Status write_profile(const ProfileOptions& options, RoutingProfile profile,
                     const std::optional<RoutingProfile>& earlier) {
  if (options.output.empty()) return {};
  if (earlier) HS_RETURN_IF_ERROR(profile.merge(*earlier));
  HS_RETURN_IF_ERROR(profile.save(options.output));
  return {};
}

// A step of the file is a token: all layers' choices.
Status write_trace(const ProfileOptions& options, const RecordedRouting& routing) {
  if (options.trace.empty()) return {};
  HS_ASSIGN_OR_RETURN(auto writer, RoutingTraceWriter::create(options.trace, routing.shape));
  const auto top_k = static_cast<size_t>(routing.shape.top_k);
  std::vector<uint16_t> step;
  for (size_t token = 0; std::cmp_less(token, routing.num_tokens()); ++token) {
    step.clear();
    for (const std::vector<uint16_t>& layer : routing.choices) {
      const auto ids = std::span(layer).subspan(token * top_k, top_k);
      step.insert(step.end(), ids.begin(), ids.end());
    }
    HS_RETURN_IF_ERROR(writer.add_step(step));
  }
  return writer.finish();
}

void tell_written(const ProfileOptions& options, int64_t num_tokens,
                  const std::optional<RoutingProfile>& earlier) {
  if (!options.output.empty() && !options.model.quiet) {
    const int64_t before = earlier ? earlier->num_tokens() : 0;
    fmt::print(stderr, "{}: the choices of {} tokens{}\n", options.output, before + num_tokens,
               earlier ? fmt::format(", {} of them from before", before) : "");
  }
  if (!options.trace.empty() && !options.model.quiet) {
    fmt::print(stderr, "{}: what {} tokens chose, one after the other\n", options.trace,
               num_tokens);
  }
}

std::string describe(const ProfileTexts& texts, int64_t num_read, int64_t num_available) {
  if (!texts.questions.empty()) {
    return fmt::format("{} tokens of {} and its answers", format_with_commas(num_read), texts.name);
  }
  if (num_read == num_available) {
    return fmt::format("{} tokens of {}", format_with_commas(num_read), texts.name);
  }
  return fmt::format("the first {} of {} tokens of {}", format_with_commas(num_read),
                     format_with_commas(num_available), texts.name);
}

// The context that a text is cut to, where the model has as much.
Result<ModelFlags> with_context(const ModelFlags& flags, const ResolvedModel& resolved) {
  ModelFlags out = flags;
  HS_ASSIGN_OR_RETURN(const ModelOptions options, to_model_options(flags));
  HS_ASSIGN_OR_RETURN(const ModelSummary summary, inspect_model(resolved.directory, options));
  HS_RETURN_IF_ERROR(check_has_experts(resolved.directory, summary.config));
  if (out.max_model_len > 0) return out;
  out.max_model_len = std::min(kContext, summary.config.max_position_embeddings);
  return out;
}

// Told before a text is read for minutes.
Status check_earlier(const std::optional<RoutingProfile>& earlier, const RoutingProfile& now,
                     const ProfileOptions& options, const LoadedModel& model) {
  if (!earlier) return {};
  if (earlier->num_tokens() > kMaxProfileTokens - options.max_tokens) {
    return fail(fmt::format("--append: {} has counted {} tokens, more don't fit", options.output,
                            earlier->num_tokens()));
  }
  if (earlier->shape() == now.shape()) return {};
  return fail(fmt::format("--append: {} is of a model with {}, but {} has {}", options.output,
                          to_text(earlier->shape()), model.directory, to_text(now.shape())));
}

// The trace is written last, over whatever is there.
Status check_trace(const ProfileOptions& options) {
  if (options.trace.empty()) return {};
  const auto refuse = [&](const char* flag, const std::string& path) {
    return fail(
        fmt::format("--trace {}: the same file as {} {}; name another", options.trace, flag, path));
  };
  if (is_same_file(options.trace, options.output)) {
    return refuse("--output", options.output);
  }
  for (const std::string& path : options.texts) {
    if (is_same_file(options.trace, path)) return refuse("--text", path);
  }
  for (const std::string& path : options.prompt_files) {
    if (is_same_file(options.trace, path)) return refuse("--prompt-file", path);
  }
  return check_folder_of(options.trace, "--trace");
}

Result<int> profile(const ProfileOptions& options) {
  HS_RETURN_IF_ERROR(check_trace(options));
  HS_ASSIGN_OR_RETURN(const auto earlier, earlier_counts(options));
  HS_ASSIGN_OR_RETURN(const ResolvedModel resolved, find_model(options.model));
  HS_ASSIGN_OR_RETURN(const ProfileTexts texts, read_profile_texts(options, resolved.directory));
  HS_ASSIGN_OR_RETURN(const ModelFlags flags, with_context(options.model, resolved));
  HS_ASSIGN_OR_RETURN(LoadedModel model, load_model(flags));
  HS_ASSIGN_OR_RETURN(const auto recorder,
                      RoutingRecorder::start(*model.model, RoutingRecorder::Keeps::kChoices));
  HS_RETURN_IF_ERROR(check_earlier(earlier, recorder->profile(), options, model));
  if (!options.model.quiet) fmt::print(stderr, "reading {}\n", texts.name);
  Reader reader(model, options);
  HS_RETURN_IF_ERROR(reader.read_all(texts));
  HS_RETURN_IF_ERROR(model.model->listen_to_routing(nullptr));
  const int exit_code = reader.was_interrupted() ? kExitInterrupted : kExitFine;
  if (recorder->profile().num_tokens() == 0) return exit_code;
  Profiled result{.model = model.name,
                  .device = model.model->device_text(),
                  .text = {},
                  .report = {},
                  .cold_start = {}};
  HS_ASSIGN_OR_RETURN(result.report, report_of(*recorder));
  HS_ASSIGN_OR_RETURN(result.cold_start, cold_start_of(recorder->recorded()));
  result.text = describe(texts, result.report.num_tokens, reader.num_available());
  const Status written = write_profile(options, recorder->profile(), earlier);
  if (options.json) {
    print_json(result, written ? options.output : std::string());
  } else {
    print_text(result);
  }
  std::fflush(stdout);
  HS_RETURN_IF_ERROR(written);
  HS_RETURN_IF_ERROR(write_trace(options, recorder->recorded()));
  tell_written(options, recorder->profile().num_tokens(), earlier);
  return exit_code;
}

}  // namespace

int run_profile(const ProfileOptions& options) {
  const auto exit_code = profile(options);
  return exit_code ? *exit_code : report_error(exit_code.error());
}

}  // namespace hotset
