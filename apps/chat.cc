// SPDX-License-Identifier: Apache-2.0
// hotset chat: a conversation in the terminal. Works the same through pipes: one line is one
// message, and the answers are all that goes to standard output.
#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <utility>

#include "conversation.h"
#include "expert_profile.h"
#include "generation.h"
#include "interrupt.h"
#include "line_reader.h"
#include "report_error.h"
#include "terminal.h"
#include "verbs.h"

namespace hotset {
namespace {

constexpr const char* kHelp =
    "  /reset        forget the conversation\n"
    "  /system TEXT  set the system message (and forget the conversation)\n"
    "  /stats        numbers of the last answer\n"
    "  /help         this list\n"
    "  /quit         leave (so do Ctrl-D and a second Ctrl-C)\n"
    "  Ctrl-C        while an answer runs: stop it\n";

class ChatSession {
 public:
  ChatSession(const ChatOptions& options, LoadedModel& model, Engine& engine,
              const SamplingParams& params)
      : options_(options),
        model_(model),
        engine_(engine),
        params_(params),
        conversation_(*model.dialect, *model.tokenizer, options.system),
        style_(stdout_style()),
        is_interactive_(stdin_is_terminal() && stdout_is_terminal()) {}

  int run();

 private:
  bool handle_line(const std::string& line);  // false: leave
  bool handle_command(const std::string& line);
  Status answer(const std::string& text);
  void print_piece(const OutputPiece& piece);
  void print_prompt() const;
  void acknowledge(const char* text) const;

  const ChatOptions& options_;
  LoadedModel& model_;
  Engine& engine_;
  SamplingParams params_;
  Conversation conversation_;
  Style style_;
  bool is_interactive_;
  Interrupts interrupts_;
  bool in_reasoning_ = false;
  std::string content_, reasoning_;
  std::optional<RequestStats> last_stats_;
  int exit_code_ = kExitFine;
};

void ChatSession::print_prompt() const {
  if (!is_interactive_) return;
  fmt::print("{}>{} ", style_.bold, style_.reset);
  std::fflush(stdout);
}

// A pipe gets answers only.
void ChatSession::acknowledge(const char* text) const {
  if (is_interactive_) fmt::print("{}{}{}\n", style_.dim, text, style_.reset);
}

int ChatSession::run() {
  if (is_interactive_) fmt::print("{}. /help for commands.\n", model_.name);
  LineReader reader(interrupts_.fd());
  bool was_interrupted = false;
  std::string line;
  while (true) {
    print_prompt();
    const LineReader::Outcome outcome = reader.read(line);
    if (outcome == LineReader::Outcome::kEnd) break;
    if (outcome == LineReader::Outcome::kInterrupted) {
      (void)interrupts_.take();
      if (was_interrupted || !is_interactive_) break;
      was_interrupted = true;
      fmt::print("\nCtrl-C again or /quit to leave.\n");
      continue;
    }
    was_interrupted = false;
    if (!handle_line(line) || std::ferror(stdout) != 0) break;
  }
  if (is_interactive_) fmt::print("\n");
  return exit_code_;
}

bool ChatSession::handle_line(const std::string& line) {
  if (line.find_first_not_of(" \t") == std::string::npos) return true;
  if (line[0] == '/') return handle_command(line);
  if (const Status status = answer(line); !status) {
    const int code = report_error(status.error());
    exit_code_ = code == kExitDeviceLost ? code : kExitFailed;
  }
  return exit_code_ != kExitDeviceLost;
}

bool ChatSession::handle_command(const std::string& line) {
  const std::string name = line.substr(0, line.find(' '));
  const std::string rest = name.size() < line.size() ? line.substr(name.size() + 1) : "";
  if (name == "/quit" || name == "/exit") return false;
  if (name == "/reset") {
    conversation_.reset();
    acknowledge("The conversation is forgotten.");
  } else if (name == "/system") {
    conversation_.set_system(rest);
    acknowledge(rest.empty() ? "No system message; a new conversation."
                             : "System message set; a new conversation.");
  } else if (name == "/stats") {
    fmt::print("{}{}{}\n", style_.dim, last_stats_ ? describe_stats(*last_stats_) : "no answer yet",
               style_.reset);
  } else if (name == "/help") {
    std::fputs(kHelp, stdout);
  } else {
    fmt::print(stderr, "unknown command {}; /help lists them\n", name);
  }
  std::fflush(stdout);
  return true;
}

Status ChatSession::answer(const std::string& text) {
  HS_ASSIGN_OR_RETURN(auto prompt_ids, conversation_.ask(text));
  auto started = generate(engine_, model_, std::move(prompt_ids), params_);
  if (!started) {
    conversation_.take_back();
    return fail(std::move(started).error());
  }
  TextStream& stream = **started;
  const auto parser = conversation_.new_parser();
  std::vector<int32_t> ids;
  content_.clear();
  reasoning_.clear();
  while (true) {
    if (interrupts_.take() || std::ferror(stdout) != 0) stream.cancel();
    const auto piece = stream.next_within(std::chrono::milliseconds(50));
    if (!piece) continue;
    const bool is_ending_id = piece->finish == FinishReason::kStop;
    if (piece->token && !is_ending_id) ids.push_back(*piece->token->token);
    print_piece(parser->push(piece->text));
    if (!piece->finish) continue;
    print_piece(parser->finish());
    fmt::print("{}\n", in_reasoning_ ? style_.reset : "");
    std::fflush(stdout);
    in_reasoning_ = false;
    last_stats_ = piece->stats;
    if (piece->finish == FinishReason::kError) {
      conversation_.take_back();
      return fail(piece->error);
    }
    conversation_.add_answer(content_, reasoning_, ids);
    return {};
  }
}

void ChatSession::print_piece(const OutputPiece& piece) {
  reasoning_ += piece.reasoning;
  content_ += piece.content;
  if (!piece.reasoning.empty() && is_interactive_ && !options_.hide_reasoning) {
    if (!in_reasoning_) fmt::print("{}", style_.dim);
    in_reasoning_ = true;
    std::fputs(piece.reasoning.c_str(), stdout);
  }
  if (!piece.content.empty()) {
    if (in_reasoning_) fmt::print("{}\n", style_.reset);
    in_reasoning_ = false;
    std::fputs(piece.content.c_str(), stdout);
  }
  std::fflush(stdout);
}

Result<int> chat(const ChatOptions& options) {
  HS_RETURN_IF_ERROR(check_flags(options.sampling));
  HS_ASSIGN_OR_RETURN(LoadedModel model, load_model(options.model));
  if (model.dialect == nullptr) {
    return fail(fmt::format("{}: has no chat template; use hotset complete", model.directory),
                ErrorKind::kUnsupported);
  }
  HS_ASSIGN_OR_RETURN(const SamplingParams params, to_sampling_params(options.sampling, model));
  HS_ASSIGN_OR_RETURN(const auto engine, start_engine(model));
  ChatSession session(options, model, *engine, params);
  const int code = session.run();
  engine->stop();
  if (code != kExitDeviceLost) save_expert_profile(options.model, model.recorder.get());
  return code;
}

}  // namespace

int run_chat(const ChatOptions& options) {
  const auto code = chat(options);
  return code ? *code : report_error(code.error());
}

}  // namespace hotset
