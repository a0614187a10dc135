// SPDX-License-Identifier: Apache-2.0
#include "routing_check.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "model/language_model.h"
#include "routing_report.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

// The same checkpoint with fewer layers: a folder in its directory with hard links to its files,
// and a config.json that counts fewer. It leaves with this.
class FirstLayers {
 public:
  explicit FirstLayers(const fs::path& directory) : folder_(directory / ".first-layers") {}
  ~FirstLayers() {
    std::error_code error;
    fs::remove_all(folder_, error);
  }
  FirstLayers(const FirstLayers&) = delete;
  FirstLayers& operator=(const FirstLayers&) = delete;

  Status create(nlohmann::ordered_json config, int64_t num_layers) {
    std::error_code error;
    fs::remove_all(folder_, error);
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
  fs::path folder_;
};

Result<RoutingReport> run(const std::string& directory, int64_t num_tokens, TextKind text) {
  ModelOptions options;
  options.isa = cpu::detect_isa();
  options.max_model_len = num_tokens;
  options.max_num_seqs = 1;
  HS_ASSIGN_OR_RETURN(const auto model, LanguageModel::load(directory, options, {}));
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
  if (most_layers <= 0 || layers <= most_layers) return run(directory, num_tokens, text);
  FirstLayers first(directory);
  HS_RETURN_IF_ERROR(first.create(std::move(config), most_layers));
  HS_ASSIGN_OR_RETURN(RoutingReport report, run(first.directory(), num_tokens, text));
  report.of_layers = layers;
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
