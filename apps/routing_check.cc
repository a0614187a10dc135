// SPDX-License-Identifier: Apache-2.0
#include "routing_check.h"

#include <fmt/format.h>

#include "model/language_model.h"
#include "routing_report.h"

namespace hotset {

Result<RoutingReport> check_routing(const std::string& directory, int64_t num_tokens,
                                    TextKind text) {
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

std::string check_table(const RoutingReport& report) {
  constexpr int64_t kMostRows = 6;
  return routing_table(report, fmt::format("{} drifting tokens", report.num_tokens), kMostRows);
}

}  // namespace hotset
