// SPDX-License-Identifier: Apache-2.0
// --expert-profile and --save-expert-profile: routing profiles in and out of a run.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "experts/routing_profile.h"
#include "model/config.h"
#include "options.h"
#include "routing_recorder.h"

namespace hotset {

// Null without --expert-profile. Also looks whether the folder of what is to be saved is there:
// better now than after the work.
[[nodiscard]] Result<std::shared_ptr<const RoutingProfile>> read_expert_profile(
    const ModelFlags& flags);

// Null without --save-expert-profile.
[[nodiscard]] Result<std::unique_ptr<RoutingRecorder>> record_expert_profile(
    const ModelFlags& flags, LanguageModel& model);

// At the clean end of a run, when nothing computes any more. What goes wrong is told on standard
// error and is no reason to call the run a failure. A file that was also --expert-profile's gets
// the counts added. `recorder` may be null.
void save_expert_profile(const ModelFlags& flags, const RoutingRecorder* recorder);

// Has the model layers with experts?
[[nodiscard]] Status check_has_experts(const std::string& directory, const ModelConfig& config);

// Do both name one file, whether it is there or not? An empty path names none.
[[nodiscard]] bool is_same_file(const std::string& a, const std::string& b);

// Can this file be written?
[[nodiscard]] Status check_folder_of(const std::string& path, const char* flag);

}  // namespace hotset
