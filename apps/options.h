// SPDX-License-Identifier: Apache-2.0
// What the command line says, as plain structs. Filled once by flags.cc, passed down from there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hotset {

struct ModelFlags {
  std::string model;     // a directory or ORG/NAME
  std::string revision;  // of a model in the cache
  int cpu_threads = 0;   // 0: the model's default
  std::string isa = "auto";
  std::string arithmetic = "fast";
  std::string device = "auto";
  int gpu = 0;
  int64_t gpu_memory_bytes = 0;   // 0: what is free, less a margin
  int64_t max_expert_slots = -1;  // −1: as many as fit
  double fetch_share = -1;        // below 0: learnt from the steps
  std::string expert_profile;     // a file by which the GPU's expert slots are filled; empty: none
  std::string save_expert_profile;  // a file for what this run chooses; empty: none
  int64_t ram_bytes = 0;            // 0: what is available
  std::string dense = "auto";
  bool dense_8bit = false;  // the same as dense = "8"
  std::string kv_cache_dtype = "auto";
  int64_t max_model_len = 0;  // 0: what config and memory allow
  bool quiet = false;
};

// Absent: the checkpoint's own default.
struct SamplingFlags {
  std::optional<double> temperature, top_p, min_p;
  std::optional<int64_t> top_k;
  std::optional<double> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int64_t> seed, max_tokens, min_tokens;
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

struct CompleteOptions {
  ModelFlags model;
  SamplingFlags sampling;
  std::optional<std::string> prompt;  // absent: standard input
  bool chat = false;  // the prompt is a user's message, put through the chat template
  bool json = false;
};

struct ChatOptions {
  ModelFlags model;
  SamplingFlags sampling;
  std::string system;
  bool hide_reasoning = false;
};

struct InspectOptions {
  ModelFlags model;
  bool json = false;
};

struct PlanOptions {
  ModelFlags model;
  int64_t max_num_seqs = 2;  // as complete and chat have it
  bool json = false;
};

struct ProfileOptions {
  ModelFlags model;
  std::vector<std::string> texts;         // files
  std::vector<std::string> prompt_files;  // a user's message a line
  int64_t max_tokens = 16384;             // in all
  int64_t answer_tokens = 64;             // to each message
  std::string output;                     // empty: nothing is written
  bool append = false;
  std::string trace;  // a file for every choice in its order; empty: none
  bool json = false;
};

struct ServeOptions {
  ModelFlags model;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::vector<std::string> served_model_names;
  std::vector<std::string> api_keys;
  std::vector<std::string> allowed_hosts;
  std::optional<int64_t> seed;
  int64_t max_num_seqs = 4;
  int64_t max_queued = 64;
  int64_t drain_seconds = 30;
};

// One row for each combination; 0 tokens: no such rows.
struct BenchOptions {
  ModelFlags model = {};
  std::vector<int64_t> prefill = {512};
  std::vector<int64_t> decode = {128};
  std::vector<int64_t> depths = {0};
  std::vector<int64_t> seqs = {1};
  int64_t repeat = 3;
  int64_t warmup = 16;  // tokens decoded before a row is measured
  std::string text = "random";
  std::string output = "md";
  std::string json_file = {};  // empty: none
  uint64_t seed = 1;
};

}  // namespace hotset
