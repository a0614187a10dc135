// SPDX-License-Identifier: Apache-2.0
// The document is built from parse events, so that depth and duplicate keys are seen before
// anything is stored, and an object of many keys costs linear time (ordered_json's own insertion
// searches all earlier keys).
#include "checkpoint/json_file.h"

#include <fmt/format.h>

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace hotset {
namespace {

class Builder : public nlohmann::json_sax<Json> {
 public:
  Json take() { return std::move(root_); }
  [[nodiscard]] const std::string& problem() const { return problem_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (!open_.back().keys.insert(name).second) {
      problem_ = fmt::format("key '{}' is given twice", name.substr(0, 100));
      return false;
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    const std::string text = error.what();
    problem_ = fmt::format("at byte {}: {}", position, text.substr(0, 300));
    return false;
  }

 private:
  struct Open {
    Json* container = nullptr;
    std::unordered_set<std::string> keys;
  };

  // A container below the top one only grows once that one is closed, so pointers stay valid.
  Json* append(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back().container;
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    using Object = Json::object_t;
    auto& object = parent.get_ref<Object&>();
    object.Object::Container::emplace_back(std::move(key_), std::move(value));
    return &object.back().second;
  }

  bool add(Json value) {
    append(std::move(value));
    return true;
  }

  bool open(Json container) {
    if (open_.size() >= static_cast<size_t>(kMaxConfigDepth)) {
      problem_ = fmt::format("nested deeper than {} levels", kMaxConfigDepth);
      return false;
    }
    Json* at = append(std::move(container));
    open_.push_back({at, {}});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Open> open_;
  std::string key_;
  std::string problem_;
};

}  // namespace

Result<Json> parse_config_json(std::string_view text, std::string_view file_name) {
  if (static_cast<int64_t>(text.size()) > kMaxConfigBytes) {
    return fail(
        fmt::format("{}: {} bytes, at most {} are read", file_name, text.size(), kMaxConfigBytes));
  }
  Builder builder;
  if (!Json::sax_parse(text, &builder)) {
    return fail(fmt::format("{}: {}", file_name, builder.problem()));
  }
  Json root = builder.take();
  if (!root.is_object()) return fail(fmt::format("{}: not a JSON object", file_name));
  return root;
}

Result<Json> read_json_file(const Directory& dir, std::string_view name) {
  HS_ASSIGN_OR_RETURN(const std::string text, read_small_file(dir, name, kMaxConfigBytes));
  return parse_config_json(text, fmt::format("{}/{}", dir.path(), name));
}

}  // namespace hotset
