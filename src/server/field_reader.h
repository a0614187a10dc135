// SPDX-License-Identifier: Apache-2.0
// Reads the fields of one JSON object with type and limit checks. null counts as absent, unknown
// fields are nobody's business, and the first thing wrong is remembered, so that a reader can be
// written as a plain list of fields with one check at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/api_error.h"
#include "server/strict_json.h"

namespace hotset {

class FieldReader {
 public:
  // `path` is put before field names in errors: "messages[2].".
  explicit FieldReader(const Json& object, std::string path = {});

  // Numbers are held against the limits table (request/limits.h) under the field's name.
  std::optional<double> number(std::string_view field);
  std::optional<int64_t> integer(std::string_view field);
  // An integer without a row in the table: anything an int64 holds.
  std::optional<int64_t> any_integer(std::string_view field);
  std::optional<bool> boolean(std::string_view field);
  std::optional<std::string> string(std::string_view field, size_t max_bytes);
  // Null when absent. Arrays are held against their row in the limits table.
  const Json* array(std::string_view field);
  const Json* object(std::string_view field);
  // The value whatever its type is; null when absent or JSON null.
  const Json* any(std::string_view field);

  // Remembers an error unless there is one already.
  void reject(std::string_view field, std::string message);
  [[nodiscard]] bool ok() const { return !error_.has_value(); }
  [[nodiscard]] const ApiError& error() const { return *error_; }
  [[nodiscard]] std::string path_of(std::string_view field) const;

 private:
  void reject_type(std::string_view field, std::string_view wanted, const Json& found);

  const Json& object_;
  std::string path_;
  std::optional<ApiError> error_;
};

}  // namespace hotset
