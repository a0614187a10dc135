// SPDX-License-Identifier: Apache-2.0
#include "routing_check.h"

#include <fmt/format.h>
#include <pthread.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "model/language_model.h"
#include "routing_report.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

// While it lives, Ctrl-C and SIGTERM wait: for those who have something to take away before.
class SignalsWait {
 public:
  SignalsWait() {
    sigset_t waiting;
    sigemptyset(&waiting);
    sigaddset(&waiting, SIGINT);
    sigaddset(&waiting, SIGTERM);
    sigaddset(&waiting, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &waiting, &previous_);
  }
  ~SignalsWait() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }
  SignalsWait(const SignalsWait&) = delete;
  SignalsWait& operator=(const SignalsWait&) = delete;

 private:
  sigset_t previous_ = {};
};

// The same checkpoint with fewer layers: a folder in its directory with hard links to its files,
// and a config.json that counts fewer. It leaves with this, which is not to outlive the loading:
// until then no signal ends the program.
class FirstLayers {
 public:
  // Takes away what a killed program may have left there.
  explicit FirstLayers(const fs::path& directory) : folder_(directory / ".first-layers") {
    remove();
  }
  ~FirstLayers() { remove(); }
  FirstLayers(const FirstLayers&) = delete;
  FirstLayers& operator=(const FirstLayers&) = delete;

  Status create(nlohmann::ordered_json config, int64_t num_layers) {
    std::error_code error;
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_.parent_path(), error)) {
      std::error_code unknown;
      if (!fs::is_regular_file(entry.symlink_status(unknown))) continue;
      if (entry.path().filename() != "config.json") files.push_back(entry.path());
    }
    if (!error) fs::create_directory(folder_, error);
    for (const fs::path& file : files) {
      if (!error) fs::create_hard_link(file, folder_ / file.filename(), error);
    }
    if (error) {
      return fail(fmt::format("{}: {}", directory(), error.message()), ErrorKind::kResource);
    }
    config["num_hidden_layers"] = num_layers;
    std::ofstream out(folder_ / "config.json");
    out << config.dump(2) << "\n";
    out.close();
    if (!out) return fail(directory() + ": could not be written", ErrorKind::kResource);
    return {};
  }
  [[nodiscard]] std::string directory() const { return folder_.string(); }

 private:
  void remove() {
    std::error_code error;
    fs::remove_all(folder_, error);
  }

  SignalsWait wait_;  // ends after the folder
  fs::path folder_;
};

Result<std::unique_ptr<LanguageModel>> load(const std::string& directory, int64_t num_tokens) {
  ModelOptions options;
  options.isa = cpu::detect_isa();
  options.max_model_len = num_tokens;
  options.max_num_seqs = 1;
  return LanguageModel::load(directory, options, {});
}

Result<std::unique_ptr<LanguageModel>> load_first(const std::string& directory, int64_t num_tokens,
                                                  nlohmann::ordered_json config,
                                                  int64_t num_layers) {
  FirstLayers first(directory);
  HS_RETURN_IF_ERROR(first.create(std::move(config), num_layers));
  return load(first.directory(), num_tokens);
}

Result<RoutingReport> run(std::unique_ptr<LanguageModel> model, int64_t num_tokens, TextKind text) {
  HS_ASSIGN_OR_RETURN(const auto recorder,
                      RoutingRecorder::start(*model, RoutingRecorder::Keeps::kChoices));
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens));
  SynthText(text, model->vocab_size(), 1).next(ids);
  std::vector<float> logits(static_cast<size_t>(model->vocab_size()));
  HS_ASSIGN_OR_RETURN(const auto sequence, model->new_sequence(num_tokens));
  HS_RETURN_IF_ERROR(model->extend(*sequence, ids, logits));
  return report_of(*recorder);
}

}  // namespace

Result<RoutingReport> check_routing(const std::string& directory, int64_t num_tokens, TextKind text,
                                    int64_t most_layers) {
  std::ifstream in(fs::path(directory) / "config.json");
  nlohmann::ordered_json config = nlohmann::ordered_json::parse(in, nullptr, false);
  const int64_t layers =
      config.is_object() ? config.value("num_hidden_layers", int64_t{0}) : int64_t{0};
  const bool is_whole = most_layers <= 0 || layers <= most_layers;
  auto model = is_whole ? load(directory, num_tokens)
                        : load_first(directory, num_tokens, std::move(config), most_layers);
  if (!model && model.error().kind == ErrorKind::kResource) {
    return fail(fmt::format("the machine's memory does not hold {}",
                            is_whole ? "the model" : "its first layers"),
                ErrorKind::kResource);
  }
  if (!model) return fail(std::move(model).error());
  HS_ASSIGN_OR_RETURN(RoutingReport report, run(std::move(*model), num_tokens, text));
  if (!is_whole) report.of_layers = layers;
  return report;
}

std::string check_table(const RoutingReport& report) {
  constexpr int64_t kMostRows = 6;
  std::string tokens = fmt::format("{} drifting tokens", report.num_tokens);
  if (report.of_layers > 0) {
    tokens += fmt::format(" in the first {} of {} layers", report.layers.size(), report.of_layers);
  }
  return routing_table(report, tokens, kMostRows);
}

}  // namespace hotset
