// SPDX-License-Identifier: Apache-2.0
// Everything this program reads from its environment.
#pragma once

#include "checkpoint/hub.h"

namespace hotset {

// HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HOME.
[[nodiscard]] HubEnv read_hub_environment();

// NO_COLOR (https://no-color.org): set and not empty.
[[nodiscard]] bool color_is_unwanted();

}  // namespace hotset
