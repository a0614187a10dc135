// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/bnb_state.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <span>

#include "checkpoint/json_file.h"

namespace hotset {
namespace {

constexpr int64_t kMaxStateBytes = 65536;

Result<int64_t> dimension(const Json& json, const char* key, const std::string& name) {
  const auto at = json.find(key);
  if (at == json.end() || !at->is_number_integer() || *at < 1 || *at > (int64_t{1} << 31)) {
    return fail(fmt::format("tensor '{}': {} is not a positive integer", name, key));
  }
  return at->get<int64_t>();
}

}  // namespace

Result<BnbState> parse_bnb_state(std::string_view text, const std::string& tensor) {
  HS_ASSIGN_OR_RETURN(const Json json, parse_config_json(text, fmt::format("tensor '{}'", tensor)));
  BnbState out;
  const auto type = json.find("quant_type");
  if (type == json.end() || (*type != "nf4" && *type != "fp4")) {
    return fail(fmt::format("tensor '{}': quant_type is neither nf4 nor fp4", tensor));
  }
  out.quant_type = type->get<std::string>();
  HS_ASSIGN_OR_RETURN(out.blocksize, dimension(json, "blocksize", tensor));
  const auto shape = json.find("shape");
  if (shape == json.end() || !shape->is_array() || shape->size() != 2 ||
      !(*shape)[0].is_number_integer() || !(*shape)[1].is_number_integer()) {
    return fail(fmt::format("tensor '{}': shape is not a pair of integers", tensor));
  }
  out.rows = (*shape)[0].get<int64_t>();
  out.cols = (*shape)[1].get<int64_t>();
  if (!json.contains("nested_blocksize")) return out;
  HS_ASSIGN_OR_RETURN(out.nested_blocksize, dimension(json, "nested_blocksize", tensor));
  const auto offset = json.find("nested_offset");
  if (offset == json.end() || !offset->is_number() ||
      !(std::fabs(offset->get<double>()) <= double{std::numeric_limits<float>::max()})) {
    return fail(fmt::format("tensor '{}': nested_offset is not a number", tensor));
  }
  out.nested_offset = offset->get<float>();
  return out;
}

Result<BnbState> read_bnb_state(const Checkpoint& checkpoint, const TensorInfo& state) {
  if (state.dtype != DType::kU8 || state.bytes > kMaxStateBytes) {
    return fail(fmt::format("tensor '{}': not the bytes of a quant state", state.name));
  }
  std::string text(static_cast<size_t>(state.bytes), '\0');
  HS_RETURN_IF_ERROR(
      checkpoint.read(state, std::as_writable_bytes(std::span(text.data(), text.size()))));
  return parse_bnb_state(text, state.name);
}

}  // namespace hotset
