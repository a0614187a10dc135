// SPDX-License-Identifier: Apache-2.0
#include "flags.h"

#include <CLI/CLI.hpp>
#include <charconv>

namespace hotset {
namespace {

// "32k", "32K" and "1m" as people write context lengths: powers of two, as vLLM reads the capitals
// and users mean the small letters.
std::string expand_length(std::string& text) {
  if (text.empty()) return "must not be empty";
  int64_t factor = 1;
  const char last = text.back();
  if (last == 'k' || last == 'K') factor = 1024;
  if (last == 'm' || last == 'M') factor = 1024 * 1024;
  const std::string digits = factor == 1 ? text : text.substr(0, text.size() - 1);
  int64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool is_number = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  if (!is_number || value < 1 || value > (int64_t{1} << 31)) {
    return "must be a number of tokens, such as 32768 or 32k";
  }
  text = std::to_string(value * factor);
  return {};
}

void add_model_flags(CLI::App& verb, ModelFlags& flags) {
  verb.add_option("model", flags.model, "Directory, or ORG/NAME in the local Hugging Face cache")
      ->required()
      ->type_name("MODEL");
  verb.add_option("--revision", flags.revision, "Branch, tag or commit of a cached model")
      ->group("Model");
  verb.add_option("--kv-cache-dtype", flags.kv_cache_dtype, "Values of the KV cache")
      ->check(CLI::IsMember(
                  {"auto", "bf16", "bfloat16", "f16", "fp16", "float16", "f32", "fp32", "float32"})
                  .description(""))
      ->default_str("auto")
      ->type_name("auto|bf16|f16|f32")
      ->group("Model");
  verb.add_flag("--dense-8bit", flags.dense_8bit, "Keep the 16-bit modules at 8 bits: less memory")
      ->group("Model");
  verb.add_flag("--quiet", flags.quiet, "No progress and no numbers on standard error");
}

void add_compute_flags(CLI::App& verb, ModelFlags& flags) {
  verb.add_option("--max-model-len,-c,--ctx-size", flags.max_model_len,
                  "Longest sequence, such as 32k (default: what config and memory allow)")
      ->transform(CLI::Validator(expand_length, "", "length"))
      ->type_name("TOKENS")
      ->group("Model");
  verb.add_option("--cpu-threads,-t,--threads", flags.cpu_threads, "Threads that compute (0: all)")
      ->check(CLI::Range(0, 1024))
      ->type_name("N")
      ->group("Computing");
  verb.add_option("--isa", flags.isa, "Instruction set (auto: the best; hotset version lists them)")
      ->default_str("auto")
      ->type_name("NAME")
      ->group("Computing");
  verb.add_option("--arithmetic", flags.arithmetic, "fast: 8-bit activations; exact: 32-bit floats")
      ->check(CLI::IsMember({"exact", "fast"}).description(""))
      ->default_str("fast")
      ->type_name("exact|fast")
      ->group("Computing");
}

void add_sampling_flags(CLI::App& verb, SamplingFlags& flags) {
  const char* group = "Sampling (default: the checkpoint's generation_config.json)";
  const auto add = [&](const char* names, auto& value, const char* help, const char* type) {
    verb.add_option(names, value, help)->type_name(type)->group(group);
  };
  add("--temperature,--temp", flags.temperature, "0 is greedy", "X");
  add("--top-k", flags.top_k, "Keep the K most probable tokens", "K");
  add("--top-p", flags.top_p, "Keep the smallest set with this probability", "P");
  add("--min-p", flags.min_p, "Drop what is less probable than P times the best", "P");
  add("--repetition-penalty", flags.repetition_penalty, "Above 1: against repetition", "X");
  add("--presence-penalty", flags.presence_penalty, "Against any token said before", "X");
  add("--frequency-penalty", flags.frequency_penalty, "The same, by how often", "X");
  add("--seed", flags.seed, "Same seed, same text", "N");
  add("--max-tokens,-n", flags.max_tokens,
      "At most N tokens (default: until the text or the context ends)", "N");
  add("--min-tokens", flags.min_tokens, "No end before N tokens", "N");
  verb.add_option("--stop", flags.stop, "End at this text; may be repeated")
      ->allow_extra_args(false)
      ->type_name("TEXT")
      ->group(group);
  verb.add_flag("--ignore-eos", flags.ignore_eos, "Go on after an end-of-text token")->group(group);
}

void add_complete(CLI::App& app, CompleteOptions& out) {
  CLI::App* verb = app.add_subcommand("complete", "Continue a text, or answer one message");
  add_model_flags(*verb, out.model);
  verb->add_option("-p,--prompt", out.prompt, "The text (default: standard input)")
      ->type_name("TEXT");
  verb->add_flag("--chat", out.chat, "The text is a user's message: use the chat template");
  verb->add_flag("--json", out.json, "Print one JSON object instead of the text");
  add_compute_flags(*verb, out.model);
  add_sampling_flags(*verb, out.sampling);
  verb->footer(
      "Examples:\n"
      "  hotset complete ./model -p 'Once upon a time' -n 100\n"
      "  hotset complete ./model --chat -p 'What is 27 + 48?'\n"
      "  hotset complete ORG/NAME --temperature 0 --json < prompt.txt");
}

void add_chat(CLI::App& app, ChatOptions& out) {
  CLI::App* verb = app.add_subcommand("chat", "Talk to a model in the terminal");
  add_model_flags(*verb, out.model);
  verb->add_option("--system", out.system, "System message")->type_name("TEXT");
  verb->add_flag("--hide-reasoning", out.hide_reasoning, "Do not show what comes before </think>");
  add_compute_flags(*verb, out.model);
  add_sampling_flags(*verb, out.sampling);
  verb->footer(
      "Examples:\n"
      "  hotset chat ./model --system 'Be brief.'\n"
      "  printf 'Hi\\nAnd in French?\\n' | hotset chat ./model --seed 1");
}

void add_inspect(CLI::App& app, InspectOptions& out) {
  CLI::App* verb = app.add_subcommand("inspect", "Show what a checkpoint holds and what it needs");
  add_model_flags(*verb, out.model);
  verb->add_flag("--json", out.json, "Print one JSON object");
  verb->footer("Example:\n  hotset inspect ORG/NAME");
}

void add_serve(CLI::App& app, ServeOptions& out) {
  CLI::App* verb = app.add_subcommand("serve", "Serve a model over the OpenAI API");
  add_model_flags(*verb, out.model);
  const char* group = "Server";
  verb->add_option("--host", out.host, "Address to listen on")
      ->default_str("127.0.0.1")
      ->type_name("ADDRESS")
      ->group(group);
  verb->add_option("--port", out.port, "Port (0: any free one)")
      ->check(CLI::Range(0, 65535))
      ->default_str("8000")
      ->type_name("PORT")
      ->group(group);
  verb->add_option("--served-model-name,--alias", out.served_model_names,
                   "Names that requests may use (default: the model's)")
      ->type_name("NAME")
      ->group(group);
  verb->add_option("--api-key", out.api_keys, "Key that requests must bring; may be repeated")
      ->envname("HOTSET_API_KEY")
      ->allow_extra_args(false)
      ->type_name("KEY")
      ->group(group);
  verb->add_option("--allowed-host", out.allowed_hosts, "Further Host names to answer to")
      ->allow_extra_args(false)
      ->type_name("NAME")
      ->group(group);
  verb->add_option("--max-num-seqs,--parallel", out.max_num_seqs,
                   "Answers that are computed in turns")
      ->check(CLI::Range(1, 256))
      ->default_str("4")
      ->type_name("N")
      ->group(group);
  verb->add_option("--max-queued", out.max_queued, "Requests that may wait; more get 429")
      ->check(CLI::Range(1, 10000))
      ->default_str("64")
      ->type_name("N")
      ->group(group);
  verb->add_option("--drain-seconds", out.drain_seconds, "Time for running answers after SIGTERM")
      ->check(CLI::Range(0, 3600))
      ->default_str("30")
      ->type_name("N")
      ->group(group);
  verb->add_option("--seed", out.seed, "Of requests without a seed (default: random)")
      ->type_name("N")
      ->group(group);
  add_compute_flags(*verb, out.model);
  verb->footer(
      "Examples:\n"
      "  hotset serve ./model\n"
      "  hotset serve ORG/NAME --host 0.0.0.0 --api-key \"$KEY\" --served-model-name qwen");
}

}  // namespace

std::unique_ptr<CLI::App> make_parser(CommandLine& out) {
  auto app = std::make_unique<CLI::App>(
      "hotset runs Qwen3-Next models straight from their Hugging Face checkpoints.", "hotset");
  app->require_subcommand(1);
  app->get_formatter()->label("SUBCOMMAND", "VERB");
  app->get_formatter()->label("Subcommands", "Verbs");
  app->set_version_flag("--version", std::string("hotset ") + HOTSET_VERSION);
  add_chat(*app, out.chat);
  add_complete(*app, out.complete);
  add_serve(*app, out.serve);
  add_inspect(*app, out.inspect);
  add_synth_flags(*app->add_subcommand("synth", "Write a synthetic checkpoint, to measure with"),
                  out.synth);
  app->add_subcommand("version", "Show the version and the instruction sets of this processor");
  app->footer(
      "Examples:\n"
      "  hotset chat ./models/demo\n"
      "  hotset serve ORG/NAME --port 8000\n"
      "hotset VERB --help tells more.");
  return app;
}

}  // namespace hotset
