// SPDX-License-Identifier: Apache-2.0
#include "profile_text.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/utf8.h"
#include "experts/path_file.h"

namespace hotset {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{256} << 20;

Result<std::string> read_text(const std::string& path) {
  HS_ASSIGN_OR_RETURN(std::string text, read_path(path, kMaxTextBytes));
  if (const size_t valid = utf8_valid_prefix(text); valid != text.size()) {
    return fail(fmt::format("{}: is not valid UTF-8 at byte {}", path, valid));
  }
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    return fail(fmt::format("{}: holds no text", path));
  }
  return text;
}

// A question a line; empty lines are none.
void add_lines(const std::string& text, std::vector<std::string>& out) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") != std::string::npos) out.push_back(std::move(line));
    at = end + 1;
  }
}

}  // namespace

Result<ProfileTexts> read_profile_texts(const ProfileOptions& options,
                                        const std::string& directory) {
  ProfileTexts out;
  for (const std::string& path : options.texts) {
    HS_ASSIGN_OR_RETURN(std::string text, read_text(path));
    out.texts.push_back(std::move(text));
  }
  for (const std::string& path : options.prompt_files) {
    HS_ASSIGN_OR_RETURN(const std::string text, read_text(path));
    add_lines(text, out.questions);
  }
  if (!options.texts.empty() || !options.prompt_files.empty()) {
    std::vector<std::string> names = options.texts;
    names.insert(names.end(), options.prompt_files.begin(), options.prompt_files.end());
    out.name = fmt::format("{}", fmt::join(names, ", "));
    return out;
  }
  const std::string held_out = (std::filesystem::path(directory) / "heldout.txt").string();
  std::error_code error;
  if (std::filesystem::is_regular_file(held_out, error)) {
    HS_ASSIGN_OR_RETURN(std::string text, read_text(held_out));
    out.name = held_out;
    out.texts.push_back(std::move(text));
    return out;
  }
  out.name = "the built-in sample";
  out.texts.emplace_back(profile_sample());
  return out;
}

}  // namespace hotset
