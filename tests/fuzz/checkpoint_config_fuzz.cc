// SPDX-License-Identifier: Apache-2.0
// Any bytes as config.json: the JSON, the model's shape and the quantisation are read or refused
// with a message; a pattern of a rule is bounded on any module name.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "checkpoint/json_file.h"
#include "checkpoint/quant_config.h"
#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = hotset::parse_config_json(text, "fuzz");
  if (!json) {
    HS_CHECK(json.error().message.starts_with("fuzz: "), "{}", json.error().message);
    return 0;
  }
  const auto model = hotset::parse_model_config(*json, "fuzz");
  HS_CHECK(model || !model.error().message.empty(), "a refusal without a message");
  const auto quant = hotset::QuantConfig::parse(*json);
  if (!quant) {
    HS_CHECK(!quant.error().message.empty(), "a refusal without a message");
    return 0;
  }
  for (const char* module : {"model.layers.0.mlp.experts.17.down_proj", "lm_head", ""}) {
    const auto scheme = quant->scheme_of(module);
    if (!scheme) continue;
    HS_CHECK(scheme->bits == 4 || scheme->bits == 8, "{} bits", scheme->bits);
    HS_CHECK(scheme->group_size == -1 || scheme->group_size > 0, "group {}", scheme->group_size);
  }
  return 0;
}
