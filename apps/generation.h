// SPDX-License-Identifier: Apache-2.0
// One answer at a time on the command line: flags over defaults, an engine of its own, and the
// numbers of the last answer in words.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "loaded_model.h"
#include "options.h"
#include "server/text_stream.h"

namespace hotset {

// What is wrong with the flags whatever the model is: told before the model is loaded.
[[nodiscard]] Status check_flags(const SamplingFlags& flags);
// The checkpoint's defaults with the flags on top, checked.
[[nodiscard]] Result<SamplingParams> to_sampling_params(const SamplingFlags& flags,
                                                        const LoadedModel& model);

// An engine for one user.
[[nodiscard]] Result<std::unique_ptr<Engine>> start_engine(LoadedModel& model);

[[nodiscard]] Result<std::unique_ptr<TextStream>> generate(Engine& engine, const LoadedModel& model,
                                                           std::vector<int32_t> prompt_ids,
                                                           const SamplingParams& params);

// "27 prompt tokens (12 kept), 80 output tokens, first after 0.41 s, 23.1 tokens/s"
[[nodiscard]] std::string describe_stats(const RequestStats& stats);

}  // namespace hotset
