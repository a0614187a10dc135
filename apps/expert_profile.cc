// SPDX-License-Identifier: Apache-2.0
#include "expert_profile.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

namespace hotset {

namespace fs = std::filesystem;

namespace {

Status save_or_add(RoutingProfile profile, const std::string& path, bool adds) {
  if (adds) {
    HS_ASSIGN_OR_RETURN(const RoutingProfile before, RoutingProfile::load(path));
    HS_RETURN_IF_ERROR(profile.merge(before));
  }
  return profile.save(path);
}

}  // namespace

bool is_same_file(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  std::error_code error;
  if (fs::equivalent(a, b, error)) return true;
  return fs::weakly_canonical(a, error) == fs::weakly_canonical(b, error);
}

Status check_has_experts(const std::string& directory, const ModelConfig& config) {
  const std::vector<bool>& moe = config.layer_is_moe;
  if (std::find(moe.begin(), moe.end(), true) != moe.end()) return {};
  return fail(fmt::format("{}: no layer has experts, so there is nothing to profile", directory));
}

Status check_folder_of(const std::string& path, const char* flag) {
  std::error_code error;
  const fs::file_status there = fs::status(path, error);
  if (fs::is_directory(there)) return fail(fmt::format("{} {}: is a directory", flag, path));
  if (fs::exists(there) && !fs::is_regular_file(there)) return {};  // written to as it is
  fs::path folder = fs::path(path).parent_path();
  if (folder.empty()) folder = ".";
  if (!fs::is_directory(folder, error)) {
    return fail(fmt::format("{} {}: there is no directory {}", flag, path, folder.string()));
  }
  if (::access(folder.c_str(), W_OK) == 0) return {};
  if (fs::exists(there) && ::access(path.c_str(), W_OK) == 0) return {};
  return fail(fmt::format("{} {}: {} can't be written to", flag, path, folder.string()));
}

Result<std::shared_ptr<const RoutingProfile>> read_expert_profile(const ModelFlags& flags) {
  if (!flags.save_expert_profile.empty()) {
    HS_RETURN_IF_ERROR(check_folder_of(flags.save_expert_profile, "--save-expert-profile"));
  }
  if (flags.expert_profile.empty()) return std::shared_ptr<const RoutingProfile>();
  auto profile = RoutingProfile::load(flags.expert_profile);
  if (!profile) {
    return fail(
        Error{profile.error().kind, fmt::format("--expert-profile {}", profile.error().message)});
  }
  return std::make_shared<const RoutingProfile>(std::move(*profile));
}

Result<std::unique_ptr<RoutingRecorder>> record_expert_profile(const ModelFlags& flags,
                                                               LanguageModel& model) {
  if (flags.save_expert_profile.empty()) return std::unique_ptr<RoutingRecorder>();
  return RoutingRecorder::start(model, RoutingRecorder::Keeps::kCounts);
}

void save_expert_profile(const ModelFlags& flags, const RoutingRecorder* recorder) {
  if (recorder == nullptr) return;
  const std::string& path = flags.save_expert_profile;
  const int64_t num_tokens = recorder->profile().num_tokens();
  if (num_tokens == 0) {  // a profile of an earlier run is worth more
    fmt::print(stderr, "--save-expert-profile: no token was computed, {} is left as it is\n", path);
    return;
  }
  std::fflush(stdout);
  const bool adds = is_same_file(flags.expert_profile, path);
  if (const Status saved = save_or_add(recorder->profile(), path, adds); !saved) {
    fmt::print(stderr, "hotset: --save-expert-profile failed: {}\n", saved.error().message);
  } else if (!flags.quiet) {
    fmt::print(stderr, "the experts that {} tokens chose are {} {}\n", num_tokens,
               adds ? "added to" : "in", path);
  }
}

}  // namespace hotset
