// SPDX-License-Identifier: Apache-2.0
#include "flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdlib>

namespace hotset {
namespace {

// "32k", "32K" and "1m" as people write context lengths: powers of two, as vLLM reads the capitals
// and users mean the small letters.
std::string expand_tokens(std::string& text, int64_t least) {
  if (text.empty()) return "must not be empty";
  int64_t factor = 1;
  const char last = text.back();
  if (last == 'k' || last == 'K') factor = 1024;
  if (last == 'm' || last == 'M') factor = 1024 * 1024;
  const std::string digits = factor == 1 ? text : text.substr(0, text.size() - 1);
  int64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  constexpr int64_t kMost = int64_t{1} << 31;
  const bool is_whole = !digits.empty() && parsed.ptr == digits.data() + digits.size();
  const bool is_held = parsed.ec != std::errc::result_out_of_range;
  if (is_whole && digits.front() != '-' && (!is_held || value > kMost / factor)) {
    return fmt::format("must be at most {} tokens", kMost);
  }
  if (!is_whole || !is_held || value < least) {
    return "must be a number of tokens, such as 32768 or 32k";
  }
  text = std::to_string(value * factor);
  return {};
}
std::string expand_length(std::string& text) {
  return expand_tokens(text, 1);
}
std::string expand_length_or_none(std::string& text) {
  return expand_tokens(text, 0);
}

// "14GiB", "14G", "14336M" or plain bytes.
// Profiles are named by their paths; standard output is for the table.
std::string is_file_name(const std::string& text) {
  if (text.empty()) return "the name of a file is missing";
  return text == "-" ? "- is no file; name one" : "";
}

// CLI::Range lets "nan" through.
std::string is_share(const std::string& text) {
  char* end = nullptr;
  const double share = std::strtod(text.c_str(), &end);
  const bool whole = !text.empty() && *end == '\0';
  return whole && share >= 0 && share <= 1 ? "" : fmt::format("{} is no share from 0 to 1", text);
}

std::string expand_bytes(std::string& text) {
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(parsed.ptr,
                              static_cast<size_t>(text.data() + text.size() - parsed.ptr));
  constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1.0},           {"B", 1.0},  {"MiB", 1048576.0},    {"M", 1048576.0},
      {"m", 1048576.0},    {"MB", 1e6}, {"GiB", 1073741824.0}, {"G", 1073741824.0},
      {"g", 1073741824.0}, {"GB", 1e9}};
  if (parsed.ec == std::errc() && value > 0) {
    for (const auto& [name, factor] : kUnits) {
      if (unit != name || value * factor < 1 || value * factor > 1e15) continue;
      text = std::to_string(static_cast<int64_t>(value * factor));
      return {};
    }
  }
  return "must be a size, such as 14GiB";
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
  verb.add_option("--dense", flags.dense,
                  "Bits of modules stored at 16: auto takes 8 where a GPU gains by it")
      ->check(CLI::IsMember({"auto", "16", "8"}).description(""))
      ->default_str("auto")
      ->type_name("auto|16|8")
      ->group("Model");
  verb.add_flag("--dense-8bit", flags.dense_8bit, "The same as --dense 8")->group("Model");
  verb.add_flag("--quiet", flags.quiet, "No progress and no numbers on standard error");
}

void add_device_flags(CLI::App& verb, ModelFlags& flags) {
  const char* group = "Computing";
  verb.add_option("--device", flags.device, "auto: a GPU where there is one that fits")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}).description(""))
      ->default_str("auto")
      ->type_name("auto|cpu|cuda")
      ->group(group);
  verb.add_option("--gpu", flags.gpu, "Which GPU, as CUDA counts them")
      ->check(CLI::Range(0, 63))
      ->default_str("0")
      ->type_name("N")
      ->group(group);
  verb.add_option("--gpu-memory", flags.gpu_memory_bytes,
                  "At most so much of the GPU's memory (default: what is free). 14GiB is good "
                  "for a card of 16 GB that also drives a screen")
      ->transform(CLI::Validator(expand_bytes, "", "size"))
      ->type_name("SIZE")
      ->group(group);
  verb.add_option("--ram", flags.ram_bytes,
                  "At most so much RAM for weights and buffers (default: what is available)")
      ->transform(CLI::Validator(expand_bytes, "", "size"))
      ->type_name("SIZE")
      ->group(group);
  verb.add_option("--max-expert-slots", flags.max_expert_slots,
                  "At most N experts on the GPU (default: as many as fit)")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30).description(""))
      ->type_name("N")
      ->group(group);
  verb.add_option(
          "--fetch-share", flags.fetch_share,
          "Share of a decode layer's missing experts that the GPU reads over PCIe while the "
          "CPU computes the others (default: learnt from the steps; results do not depend on it)")
      ->check(CLI::Validator(is_share, "", "share"))
      ->type_name("0…1")
      ->group(group);
}

void add_compute_flags(CLI::App& verb, ModelFlags& flags) {
  verb.add_option("--max-model-len,-c,--ctx-size", flags.max_model_len,
                  "Longest sequence, such as 32k (default: what config and memory allow)")
      ->transform(CLI::Validator(expand_length, "", "length"))
      ->type_name("TOKENS")
      ->group("Model");
  verb.add_option("--cpu-threads,-t,--threads", flags.cpu_threads,
                  "Threads that compute (0: one per processor; beside a GPU one core less)")
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
  add_device_flags(verb, flags);
}

void add_profile_flags(CLI::App& verb, ModelFlags& flags) {
  verb.add_option("--expert-profile", flags.expert_profile,
                  "Start with this profile's most chosen experts on the GPU (hotset profile, or "
                  "--save-expert-profile of an earlier run)")
      ->check(CLI::Validator(is_file_name, "", "file"))
      ->type_name("FILE")
      ->group("Computing");
  verb.add_option(
          "--save-expert-profile", flags.save_expert_profile,
          "Write there, at the end, how often this run chose each expert; replaces the file, "
          "or adds to it where it is --expert-profile's")
      ->check(CLI::Validator(is_file_name, "", "file"))
      ->type_name("FILE")
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
  add_profile_flags(*verb, out.model);
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
  add_profile_flags(*verb, out.model);
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

void add_plan(CLI::App& app, PlanOptions& out) {
  CLI::App* verb =
      app.add_subcommand("plan", "Show where memory would go and what speed follows, not loading");
  add_model_flags(*verb, out.model);
  verb->add_option("--max-num-seqs,--parallel", out.max_num_seqs,
                   "Sequences at once; serve adds one for prefixes")
      ->check(CLI::Range(1, 256))
      ->default_str("2")
      ->type_name("N");
  verb->add_flag("--json", out.json, "Print one JSON object");
  add_compute_flags(*verb, out.model);
  verb->footer(
      "Where there is no GPU, --gpu-memory describes one, and --ram its machine.\n"
      "Example:\n"
      "  hotset plan ORG/NAME --gpu-memory 14GiB --max-model-len 32k");
}

void add_profile(CLI::App& app, ProfileOptions& out) {
  CLI::App* verb = app.add_subcommand(
      "profile", "Count which experts a text chooses, and what a cache makes of it");
  add_model_flags(*verb, out.model);
  const char* group = "Text (default: heldout.txt of the model's directory, or a built-in sample)";
  verb->add_option("--text", out.texts, "A file that the model reads as it is; may be repeated")
      ->allow_extra_args(false)
      ->type_name("FILE")
      ->group(group);
  verb->add_option("--prompt-file", out.prompt_files,
                   "A file of messages, one a line, which the model also answers; may be repeated")
      ->allow_extra_args(false)
      ->type_name("FILE")
      ->group(group);
  verb->add_option("--max-tokens,-n", out.max_tokens, "Read at most so many tokens, in all")
      ->transform(CLI::Validator(expand_length, "", "length"))
      ->check(CLI::Range(1, 1 << 20).description(""))
      ->default_str("16k")
      ->type_name("TOKENS")
      ->group(group);
  verb->add_option("--answer-tokens", out.answer_tokens, "At most so many for each answer")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str()
      ->type_name("N")
      ->group(group);
  verb->add_option("-o,--output", out.output, "Write the profile, for --expert-profile")
      ->check(CLI::Validator(is_file_name, "", "file"))
      ->type_name("FILE");
  verb->add_flag("--append", out.append, "Add to what the output holds already");
  verb->add_option("--trace", out.trace,
                   "Write every choice in its order, for expert_cache_sim --trace")
      ->check(CLI::Validator(is_file_name, "", "file"))
      ->type_name("FILE");
  verb->add_flag("--json", out.json, "Print one JSON object");
  add_compute_flags(*verb, out.model);
  verb->get_option("--max-model-len")
      ->description("Texts are read in pieces of so many tokens (default: 4k)");
  verb->footer(
      "Examples:\n"
      "  hotset profile ./model --text mails.txt -o mails.profile\n"
      "  hotset serve ./model --expert-profile mails.profile");
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
                   "Answers computed at once; up to 16 of them share each read of the weights")
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
  add_profile_flags(*verb, out.model);
  verb->footer(
      "Examples:\n"
      "  hotset serve ./model\n"
      "  hotset serve ORG/NAME --host 0.0.0.0 --api-key \"$KEY\" --served-model-name qwen");
}

void add_bench(CLI::App& app, BenchOptions& out) {
  CLI::App* verb = app.add_subcommand("bench", "Measure prefill and decode, as rows of a table");
  add_model_flags(*verb, out.model);
  const char* group = "Rows (each combination is one; lists are separated by commas)";
  const auto lengths = [&](const char* names, std::vector<int64_t>& value, const char* help,
                           const char* fallback) {
    verb->add_option(names, value, help)
        ->delimiter(',')
        ->allow_extra_args(false)
        ->transform(CLI::Validator(expand_length_or_none, "", "length"))
        ->default_str(fallback)
        ->type_name("N,…")
        ->group(group);
  };
  const auto number = [&](const char* names, int64_t& value, const char* help, int64_t least,
                          int64_t most) {
    verb->add_option(names, value, help)
        ->check(CLI::Range(least, most))
        ->capture_default_str()
        ->type_name("N")
        ->group(group);
  };
  lengths("-p,--prefill", out.prefill, "pp rows: tokens of a prompt (0: no such rows)", "512");
  lengths("-n,--decode", out.decode, "tg rows: tokens decoded one by one (0: no such rows)", "128");
  lengths("-d,--depth", out.depths, "Tokens in the context before", "0");
  verb->add_option("--seqs", out.seqs, "Sequences that are decoded together")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 256))
      ->default_str("1")
      ->type_name("N,…")
      ->group(group);
  number("-r,--repeat", out.repeat, "Repetitions of each row", 1, 1000);
  number("--warmup", out.warmup, "Tokens decoded before a tg row is measured", 0, 1 << 20);
  verb->add_option(
          "--text", out.text,
          "random: any ids; drift: topics that change slowly, as synth --routing zipf:S has")
      ->check(CLI::IsMember({"random", "drift"}).description(""))
      ->default_str("random")
      ->type_name("random|drift")
      ->group(group);
  verb->add_option("--seed", out.seed, "Same seed, same token ids")
      ->capture_default_str()
      ->type_name("N")
      ->group(group);
  verb->add_option("-o,--output", out.output, "A table in Markdown, or one JSON object")
      ->check(CLI::IsMember({"md", "json"}).description(""))
      ->default_str("md")
      ->type_name("md|json")
      ->group(group);
  verb->add_flag_callback(
          "--json", [&out] { out.output = "json"; }, "The same as -o json")
      ->group(group);
  verb->add_option("--json-file", out.json_file, "Write the JSON object there, whatever -o says")
      ->type_name("FILE")
      ->group(group);
  add_compute_flags(*verb, out.model);
  add_profile_flags(*verb, out.model);
  verb->footer(
      "A row: tokens/s of all sequences together as mean ± deviation over the repetitions, and "
      "their\n"
      "median; ms/token is what one sequence waits for its next token.\n"
      "The bound is what has to move over what was measured to move at the start; the share of it\n"
      "that was reached follows. On the CPU, tg rows tell bytes per token and GB/s, and pp rows "
      "have\n"
      "no bound: arithmetic is theirs, and its rate is not measured. On a GPU, rows tell how many\n"
      "of the experts chosen were there (hits), and how many per token the CPU computed (misses) "
      "or\n"
      "the GPU read over PCIe (fetched); these need a warm cache: give\n"
      "--warmup 256 or more. A second table tells where the time of a step went.\n"
      "The context is reserved for the longest row, unless --max-model-len says how long it is; "
      "rows\n"
      "that do not fit are skipped, with a line that says why.\n"
      "Examples:\n"
      "  hotset bench ./model\n"
      "  hotset bench ./model -p 512,8192 -n 128 -d 0,16k,64k\n"
      "  hotset bench ./model -p 0 -n 64 --seqs 1,4,16 --device cpu -o json");
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
  add_plan(*app, out.plan);
  add_profile(*app, out.profile);
  add_bench(*app, out.bench);
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
