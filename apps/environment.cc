// SPDX-License-Identifier: Apache-2.0
#include "environment.h"

#include <cstdlib>
#include <string>

namespace hotset {
namespace {

std::string read_variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

HubEnv read_hub_environment() {
  HubEnv env;
  env.hf_hub_cache = read_variable("HF_HUB_CACHE");
  env.huggingface_hub_cache = read_variable("HUGGINGFACE_HUB_CACHE");
  env.hf_home = read_variable("HF_HOME");
  env.xdg_cache_home = read_variable("XDG_CACHE_HOME");
  env.home = read_variable("HOME");
  return env;
}

bool color_is_unwanted() {
  return !read_variable("NO_COLOR").empty();
}

}  // namespace hotset
