// SPDX-License-Identifier: Apache-2.0
#include "server/field_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "request/limits.h"
#include "request/validate.h"

namespace hotset {
namespace {

// Exact integers only; 3.0 is one, as some clients write it.
std::optional<int64_t> exact_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (std::trunc(number) != number || std::abs(number) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(number);
}

}  // namespace

FieldReader::FieldReader(const Json& object, std::string path)
    : object_(object), path_(std::move(path)) {}

std::string FieldReader::path_of(std::string_view field) const {
  return path_ + std::string(field);
}

void FieldReader::reject(std::string_view field, std::string message) {
  if (!ok()) return;
  if (!path_.empty()) message = path_.substr(0, path_.size() - 1) + ": " + message;
  error_ = ApiError{400, std::move(message), path_of(field), "invalid_value", 0};
}

void FieldReader::reject_type(std::string_view field, std::string_view wanted, const Json& found) {
  reject(field, fmt::format("{} must be {}, not {}.", field, wanted, found.type_name()));
}

const Json* FieldReader::any(std::string_view field) {
  const auto it = object_.find(std::string(field));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<double> FieldReader::number(std::string_view field) {
  const Json* value = any(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    reject_type(field, "a number", *value);
    return std::nullopt;
  }
  const auto number = value->get<double>();
  if (auto error = check_number(field, number)) {
    reject(field, std::move(error->message));
    return std::nullopt;
  }
  return number;
}

std::optional<int64_t> FieldReader::integer(std::string_view field) {
  const auto value = number(field);  // the range first: its message names the limit
  return value ? any_integer(field) : std::nullopt;
}

std::optional<int64_t> FieldReader::any_integer(std::string_view field) {
  const Json* value = any(field);
  if (value == nullptr) return std::nullopt;
  const auto integer = exact_integer(*value);
  if (!integer) {
    reject(field, fmt::format("{} must be an integer that fits 64 bits.", field));
  }
  return integer;
}

std::optional<bool> FieldReader::boolean(std::string_view field) {
  const Json* value = any(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) {
    reject_type(field, "true or false", *value);
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<std::string> FieldReader::string(std::string_view field, size_t max_bytes) {
  const Json* value = any(field);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    reject_type(field, "a string", *value);
    return std::nullopt;
  }
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    reject(field,
           fmt::format("{} has {} bytes; at most {} are accepted.", field, text.size(), max_bytes));
    return std::nullopt;
  }
  return text;
}

const Json* FieldReader::array(std::string_view field) {
  const Json* value = any(field);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    reject_type(field, "an array", *value);
    return nullptr;
  }
  const size_t limit = count_limit(field);
  if (value->size() > limit) {
    reject(field,
           fmt::format("{} has {} entries; at most {} are accepted.", field, value->size(), limit));
    return nullptr;
  }
  return value;
}

const Json* FieldReader::object(std::string_view field) {
  const Json* value = any(field);
  if (value == nullptr) return nullptr;
  if (!value->is_object()) {
    reject_type(field, "an object", *value);
    return nullptr;
  }
  return value;
}

}  // namespace hotset
