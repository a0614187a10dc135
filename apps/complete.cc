// SPDX-License-Identifier: Apache-2.0
// hotset complete: the prompt goes in as it is, or with --chat as a user's message; the answer
// streams out.
#include <fmt/format.h>

#include <cstdio>
#include <utility>

#include "conversation.h"
#include "generation.h"
#include "line_reader.h"
#include "report_error.h"
#include "server/wire.h"
#include "terminal.h"
#include "tokenizer/tokenizer.h"
#include "verbs.h"

namespace hotset {
namespace {

struct Completion {
  std::string text;
  TextPiece last;
};

Completion print_answer(TextStream& stream, bool quiet_output) {
  Completion out;
  while (true) {
    TextPiece piece = stream.next();
    out.text += piece.text;
    if (!quiet_output) {
      std::fputs(piece.text.c_str(), stdout);
      std::fflush(stdout);
    }
    if (!piece.finish) continue;
    out.last = std::move(piece);
    return out;
  }
}

void print_json(const Completion& completion) {
  Json json;
  json["text"] = completion.text;
  json["finish_reason"] = std::string(finish_reason_name(*completion.last.finish));
  json["usage"] = usage_json(completion.last.stats, 0);
  json["timings"] = timings_json(completion.last.stats);
  fmt::print("{}\n", to_json_text(json));
}

Result<std::vector<int32_t>> prompt_ids(const CompleteOptions& options, const LoadedModel& model,
                                        const std::string& prompt) {
  if (!options.chat) return model.tokenizer->tokenize(prompt);
  if (model.dialect == nullptr) {
    return fail(fmt::format("{}: has no chat template; leave --chat out", model.directory),
                ErrorKind::kUnsupported);
  }
  Conversation conversation(*model.dialect, *model.tokenizer, /*system=*/"");
  return conversation.ask(prompt);
}

Result<Completion> complete(const CompleteOptions& options, const std::string& prompt) {
  HS_ASSIGN_OR_RETURN(LoadedModel model, load_model(options.model));
  HS_ASSIGN_OR_RETURN(const SamplingParams params, to_sampling_params(options.sampling, model));
  HS_ASSIGN_OR_RETURN(auto ids, prompt_ids(options, model, prompt));
  HS_ASSIGN_OR_RETURN(const auto engine, start_engine(model));
  HS_ASSIGN_OR_RETURN(const auto stream, generate(*engine, model, std::move(ids), params));
  Completion completion = print_answer(*stream, options.json);
  if (completion.last.finish == FinishReason::kError) return fail(completion.last.error);
  return completion;
}

}  // namespace

int run_complete(const CompleteOptions& options) {
  if (!options.prompt && stdin_is_terminal()) {
    return report_bad_input("complete needs a prompt: -p TEXT, or text on standard input");
  }
  const std::string prompt = options.prompt ? *options.prompt : read_all_input();
  if (prompt.empty()) return report_bad_input("the prompt is empty: give -p TEXT or pipe text in");
  const auto completion = complete(options, prompt);
  if (!completion) return report_error(completion.error());
  if (options.json) {
    print_json(*completion);
    return kExitFine;
  }
  if (completion->text.empty() || completion->text.back() != '\n') std::fputs("\n", stdout);
  std::fflush(stdout);  // before what goes to stderr: both may be one log
  if (!options.model.quiet) {
    fmt::print(stderr, "{}\n", describe_stats(completion->last.stats));
  }
  return kExitFine;
}

}  // namespace hotset
