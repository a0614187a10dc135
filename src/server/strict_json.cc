// SPDX-License-Identifier: Apache-2.0
#include "server/strict_json.h"

#include <fmt/format.h>

#include <unordered_set>
#include <utility>
#include <vector>

namespace hotset {
namespace {

// Builds the document from the parser's events with an explicit stack, so nothing here recurses.
// Appends members directly: the ordered map's own insert would search all earlier keys each time.
class DocumentBuilder : public nlohmann::json_sax<Json> {
 public:
  Json take_document() { return std::move(document_); }
  const std::string& error() const { return error_; }

  bool null() override { return add(Json()); }
  bool boolean(bool value) override { return add(Json(value)); }
  bool number_integer(number_integer_t value) override { return add(Json(value)); }
  bool number_unsigned(number_unsigned_t value) override { return add(Json(value)); }
  bool number_float(number_float_t value, const string_t&) override { return add(Json(value)); }
  bool string(string_t& value) override { return add(Json(std::move(value))); }
  bool binary(binary_t&) override { return refuse("binary values are not JSON"); }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    Level& level = levels_.back();
    if (!level.keys.insert(name).second) {
      return refuse(fmt::format("the key \"{}\" appears twice in one object", name.substr(0, 64)));
    }
    level.next_key = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return refuse(fmt::format("not valid JSON near byte {}", position));
  }

 private:
  struct Level {
    Json value;
    std::string next_key;
    std::unordered_set<std::string> keys;
  };

  bool refuse(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    return false;
  }

  bool add(Json value) {
    if (++num_values_ > kMaxJsonValues) {
      return refuse(fmt::format("more than {} JSON values", kMaxJsonValues));
    }
    place(std::move(value));
    return true;
  }

  void place(Json value) {
    if (levels_.empty()) {
      document_ = std::move(value);
      return;
    }
    Level& level = levels_.back();
    if (level.value.is_array()) {
      level.value.get_ref<Json::array_t&>().push_back(std::move(value));
    } else {
      level.value.get_ref<Json::object_t&>().emplace_back(std::move(level.next_key),
                                                          std::move(value));
    }
  }

  bool open(Json container) {
    if (levels_.size() >= kMaxJsonDepth) {
      return refuse(fmt::format("JSON is nested deeper than {} levels", kMaxJsonDepth));
    }
    if (++num_values_ > kMaxJsonValues) {
      return refuse(fmt::format("more than {} JSON values", kMaxJsonValues));
    }
    levels_.push_back({std::move(container), {}, {}});
    return true;
  }

  bool close() {
    Json done = std::move(levels_.back().value);
    levels_.pop_back();
    place(std::move(done));
    return true;
  }

  std::vector<Level> levels_;
  Json document_;
  std::string error_;
  size_t num_values_ = 0;
};

}  // namespace

Result<Json> parse_strict_json(std::string_view text) {
  DocumentBuilder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return fail(builder.error().empty() ? "not valid JSON" : builder.error());
  }
  return builder.take_document();
}

std::string to_json_text(const Json& json) {
  return json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace hotset
