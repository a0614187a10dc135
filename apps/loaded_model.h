// SPDX-License-Identifier: Apache-2.0
// From flags to a model that is ready to talk: finds the directory, reads tokenizer, template and
// defaults, loads the weights. The cheap parts come first, so that a bad file is told before
// forty gigabytes have been read.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "chat/chat_template.h"
#include "checkpoint/hub.h"
#include "model/language_model.h"
#include "options.h"
#include "request/generation_defaults.h"

namespace hotset {

class Dialect;
class RoutingRecorder;
class Tokenizer;

struct LoadedModel {
  LoadedModel();
  ~LoadedModel();
  LoadedModel(LoadedModel&&) noexcept;
  LoadedModel& operator=(LoadedModel&&) noexcept;

  std::string name;
  std::string directory;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;  // null: the checkpoint has none
  std::unique_ptr<Dialect> dialect;             // null then too
  GenerationDefaults defaults;
  std::unique_ptr<RoutingRecorder> recorder;  // hears `model` with --save-expert-profile, else null
  std::unique_ptr<LanguageModel> model;
  int64_t num_valid_tokens = 0;
};

// The directory that the flags mean; it has a config.json at least.
[[nodiscard]] Result<ResolvedModel> find_model(const ModelFlags& flags);

[[nodiscard]] Result<ModelOptions> to_model_options(const ModelFlags& flags);

// What a load decided, and what is not as it should be, a line each on standard error.
void print_load_report(const LanguageModel& model);

using ProgressFn = std::function<void(int64_t done_bytes, int64_t total_bytes, double seconds)>;

// Room for so many sequences at once, and `fixed_num_seqs` that no flag counts.
[[nodiscard]] Result<LoadedModel> load_model(const ModelFlags& flags, int64_t max_num_seqs,
                                             int64_t fixed_num_seqs, const ProgressFn& progress);
// With a progress bar on standard error.
[[nodiscard]] Result<LoadedModel> load_model(const ModelFlags& flags);

}  // namespace hotset
