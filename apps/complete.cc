// SPDX-License-Identifier: Apache-2.0
// hotset complete: the prompt goes in as it is, or with --chat as a user's message; the answer
// streams out.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "base/utf8.h"
#include "conversation.h"
#include "expert_profile.h"
#include "generation.h"
#include "interrupt.h"
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
  bool was_interrupted = false;
};

// Ctrl-C, and a reader of our output that has left, end the answer.
Completion print_answer(TextStream& stream, bool quiet_output) {
  Interrupts interrupts;
  Completion out;
  while (true) {
    if (interrupts.take()) {
      out.was_interrupted = true;
      stream.cancel();
    }
    auto piece = stream.next_within(std::chrono::milliseconds(50));
    if (!piece) continue;
    out.text += piece->text;
    if (!quiet_output) {
      std::fwrite(piece->text.data(), 1, piece->text.size(), stdout);
      if (std::fflush(stdout) != 0) stream.cancel();
    }
    if (!piece->finish) continue;
    out.last = std::move(*piece);
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

// What follows the answer; the exit code.
int finish_output(const CompleteOptions& options, const Completion& completion) {
  const int exit_code = completion.was_interrupted ? kExitInterrupted : kExitFine;
  if (options.json) {
    print_json(completion);
    return exit_code;
  }
  if (completion.text.empty() || completion.text.back() != '\n') std::fputs("\n", stdout);
  std::fflush(stdout);  // before what goes to stderr: both may be one log
  if (!options.model.quiet) {
    fmt::print(stderr, "{}\n", describe_stats(completion.last.stats));
  }
  return exit_code;
}

Result<int> complete(const CompleteOptions& options, const std::string& prompt) {
  HS_ASSIGN_OR_RETURN(LoadedModel model, load_model(options.model));
  HS_ASSIGN_OR_RETURN(const SamplingParams params, to_sampling_params(options.sampling, model));
  HS_ASSIGN_OR_RETURN(auto ids, prompt_ids(options, model, prompt));
  HS_ASSIGN_OR_RETURN(const auto engine, start_engine(model));
  HS_ASSIGN_OR_RETURN(const auto stream, generate(*engine, model, std::move(ids), params));
  const Completion completion = print_answer(*stream, options.json);
  const auto finish = completion.last.finish;
  if (finish == FinishReason::kError) return fail(completion.last.error);
  if (finish == FinishReason::kCancelled && !completion.was_interrupted) {
    return fail("the answer is cut off: nobody reads the output", ErrorKind::kInternal);
  }
  engine->stop();
  const int exit_code = finish_output(options, completion);
  save_expert_profile(options.model, model.recorder.get());
  return exit_code;
}

}  // namespace

int run_complete(const CompleteOptions& options) {
  if (!options.prompt && stdin_is_terminal()) {
    return report_bad_input("complete needs a prompt: -p TEXT, or text on standard input");
  }
  if (const Status status = check_flags(options.sampling); !status) {
    return report_error(status.error());
  }
  const std::string prompt = options.prompt ? *options.prompt : read_all_input();
  if (prompt.empty()) return report_bad_input("the prompt is empty: give -p TEXT or pipe text in");
  if (const size_t valid = utf8_valid_prefix(prompt); valid != prompt.size()) {
    return report_bad_input(fmt::format("the prompt is not valid UTF-8 at byte {}", valid));
  }
  const auto exit_code = complete(options, prompt);
  return exit_code ? *exit_code : report_error(exit_code.error());
}

}  // namespace hotset
