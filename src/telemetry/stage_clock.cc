// SPDX-License-Identifier: Apache-2.0
#include "telemetry/stage_clock.h"

namespace hotset {

const char* stage_name(Stage stage) {
  switch (stage) {
    case Stage::kEmbed:
      return "embed";
    case Stage::kMixerProjections:
      return "mixer projections";
    case Stage::kDeltaNet:
      return "delta net";
    case Stage::kAttention:
      return "attention";
    case Stage::kRouter:
      return "router";
    case Stage::kExperts:
      return "experts";
    case Stage::kExpertsWait:
      return "waiting for experts";
    case Stage::kNorms:
      return "norms";
    case Stage::kHead:
      return "head";
    case Stage::kNumStages:
      break;
  }
  return "?";
}

}  // namespace hotset
