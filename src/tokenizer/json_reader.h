// SPDX-License-Identifier: Apache-2.0
// simdjson values with our errors: each getter names the field that has the wrong type.
#pragma once

#include <fmt/format.h>
#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset::json {

using Value = simdjson::ondemand::value;

inline tl::unexpected<Error> wrong(std::string_view field, std::string_view expected) {
  return fail(fmt::format("{} is not {}", field, expected));
}
inline tl::unexpected<Error> malformed(std::string_view field, simdjson::error_code code) {
  return fail(fmt::format("malformed JSON in {}: {}", field, simdjson::error_message(code)));
}

inline Result<std::string_view> string(Value value, std::string_view field) {
  std::string_view out;
  if (value.get_string().get(out) != simdjson::SUCCESS) return wrong(field, "a string");
  return out;
}
inline Result<bool> boolean(Value value, std::string_view field) {
  bool out = false;
  if (value.get_bool().get(out) != simdjson::SUCCESS) return wrong(field, "true or false");
  return out;
}
inline Result<int64_t> integer(Value value, std::string_view field) {
  int64_t out = 0;
  if (value.get_int64().get(out) != simdjson::SUCCESS) return wrong(field, "an integer");
  return out;
}
inline Result<bool> is_null(Value value, std::string_view field) {
  simdjson::ondemand::json_type type{};
  if (const auto code = value.type().get(type)) return malformed(field, code);
  return type == simdjson::ondemand::json_type::null;
}

// Calls on_field(key, value) -> Status for each member; a key that comes twice is an error unless
// the caller looks for that itself (vocabularies do, by the bytes).
template <typename OnField>
Status each_field(Value value, std::string_view name, OnField&& on_field, bool check_keys = true) {
  simdjson::ondemand::object object;
  if (value.get_object().get(object) != simdjson::SUCCESS) return wrong(name, "an object");
  std::vector<std::string_view> keys;
  for (auto member : object) {
    simdjson::ondemand::field field;
    if (const auto code = std::move(member).get(field)) return malformed(name, code);
    std::string_view key;
    if (const auto code = field.unescaped_key().get(key)) return malformed(name, code);
    if (check_keys) {
      for (const std::string_view known : keys) {
        if (known == key) return fail(fmt::format("{} has the key '{}' twice", name, key));
      }
      keys.push_back(key);
      if (keys.size() > 1000) return fail(fmt::format("{} has more than 1000 keys", name));
    }
    HS_RETURN_IF_ERROR(on_field(key, field.value()));
  }
  return {};
}

// Calls on_element(index, value) -> Status.
template <typename OnElement>
Status each_element(Value value, std::string_view name, OnElement&& on_element) {
  simdjson::ondemand::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) return wrong(name, "an array");
  size_t index = 0;
  for (auto element : array) {
    Value item;
    if (const auto code = std::move(element).get(item)) return malformed(name, code);
    HS_RETURN_IF_ERROR(on_element(index++, item));
  }
  return {};
}

}  // namespace hotset::json
