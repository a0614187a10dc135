// SPDX-License-Identifier: Apache-2.0
// From what the user typed to a model directory: a directory, or ORG/NAME in the local Hugging Face
// cache. Nothing is ever downloaded; when something is missing, the error says which files and the
// command that fetches them.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace hotset {

// Read from the environment by apps/; empty: not set.
struct HubEnv {
  std::string hf_hub_cache;           // HF_HUB_CACHE
  std::string huggingface_hub_cache;  // HUGGINGFACE_HUB_CACHE
  std::string hf_home;                // HF_HOME
  std::string xdg_cache_home;         // XDG_CACHE_HOME
  std::string home;                   // HOME
};

struct ResolvedModel {
  std::string directory;  // to give to Checkpoint::open
  std::string name;       // ORG/NAME, or the last component of the directory
  std::string revision;   // commit of the snapshot; empty for a plain directory
};

// The first of these that is set: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub,
// XDG_CACHE_HOME/huggingface/hub, HOME/.cache/huggingface/hub.
[[nodiscard]] std::string hub_cache_directory(const HubEnv& env);

// `revision`: a branch, tag or commit; empty means refs/main, else the only snapshot there is.
[[nodiscard]] Result<ResolvedModel> resolve_model(std::string_view argument, const HubEnv& env,
                                                  std::string_view revision = {});

// "hf download ORG/NAME" for a model in the cache layout, else a hint to complete the folder.
[[nodiscard]] std::string fetch_command(const std::string& directory);

}  // namespace hotset
