// SPDX-License-Identifier: Apache-2.0
// The cache layout: models--ORG--NAME/{blobs, refs/<revision>, snapshots/<commit>}. Names become
// paths only after every component was found to be a plain file name.
#include "checkpoint/hub.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "memory/file.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEntryPrefix = "models--";
constexpr int64_t kMaxRefBytes = 4096;

bool is_directory(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool is_repo_part(std::string_view part) {
  if (!is_plain_file_name(part) || part.size() > 96 || part.find("--") != std::string_view::npos) {
    return false;
  }
  return std::all_of(part.begin(), part.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

bool is_repo_id(std::string_view text) {
  const auto parts = split(text, '/');
  return parts.size() == 2 && is_repo_part(parts[0]) && is_repo_part(parts[1]);
}

std::string without_trailing_slashes(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return std::string(path);
}

std::string entry_name(std::string_view repo) {
  const size_t slash = repo.find('/');
  return fmt::format("{}{}--{}", kEntryPrefix, repo.substr(0, slash), repo.substr(slash + 1));
}

std::string repo_of_entry(std::string_view entry) {
  std::string repo(entry.substr(kEntryPrefix.size()));
  const size_t dashes = repo.find("--");
  if (dashes != std::string::npos) repo.replace(dashes, 2, "/");
  return repo;
}

std::string download_command(std::string_view repo, std::string_view revision) {
  if (revision.empty()) return fmt::format("hf download {}", repo);
  return fmt::format("hf download {} --revision {}", repo, revision);
}

// The commit that refs/<revision> names; empty when there is no such ref.
Result<std::string> read_ref(const std::string& entry, std::string_view revision) {
  const auto parts = split(revision, '/');
  if (!std::all_of(parts.begin(), parts.end(),
                   [](const auto& p) { return is_plain_file_name(p); })) {
    return fail(fmt::format("revision '{}' is not a branch, tag or commit", revision));
  }
  std::string folder = entry + "/refs";
  for (size_t i = 0; i + 1 < parts.size(); ++i) folder += "/" + parts[i];
  const auto dir = Directory::open(folder);
  if (!dir || !dir->contains(parts.back())) return std::string();
  HS_ASSIGN_OR_RETURN(std::string text, read_small_file(*dir, parts.back(), kMaxRefBytes));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ' || text.back() == '\r')) {
    text.pop_back();
  }
  if (!is_plain_file_name(text)) {
    return fail(fmt::format("{}/refs/{} does not name a commit", entry, revision));
  }
  return text;
}

std::vector<std::string> snapshots_of(const std::string& entry) {
  const auto dir = Directory::open(entry + "/snapshots");
  if (!dir) return {};
  std::vector<std::string> names = dir->names().value_or(std::vector<std::string>());
  std::erase_if(names, [&](const std::string& name) {
    return !is_directory(fmt::format("{}/snapshots/{}", entry, name));
  });
  return names;
}

Result<std::string> choose_snapshot(const std::string& entry, std::string_view repo,
                                    std::string_view revision) {
  const auto snapshots = snapshots_of(entry);
  const auto have = [&](const std::string& commit) {
    return std::find(snapshots.begin(), snapshots.end(), commit) != snapshots.end();
  };
  if (have(std::string(revision))) return std::string(revision);
  HS_ASSIGN_OR_RETURN(const std::string commit,
                      read_ref(entry, revision.empty() ? "main" : revision));
  if (!commit.empty() && have(commit)) return commit;
  if (revision.empty() && commit.empty() && snapshots.size() == 1) return snapshots[0];
  if (revision.empty() && commit.empty() && snapshots.size() > 1) {
    return fail(fmt::format("{}: {} snapshots and no refs/main; choose one with --revision: {}",
                            entry, snapshots.size(), fmt::join(snapshots, ", ")));
  }
  return fail(fmt::format("{}: revision '{}' is not in the cache. To fetch it: {}", entry,
                          revision.empty() ? "main" : revision, download_command(repo, revision)),
              ErrorKind::kNotFound);
}

Result<ResolvedModel> resolve_entry(const std::string& entry, std::string_view repo,
                                    std::string_view revision) {
  HS_ASSIGN_OR_RETURN(const std::string commit, choose_snapshot(entry, repo, revision));
  return ResolvedModel{fmt::format("{}/snapshots/{}", entry, commit), std::string(repo), commit};
}

// The entry's name within a path (".../models--ORG--NAME/snapshots/COMMIT") and what follows it.
struct EntryInPath {
  std::string repo;
  std::string commit;
};
EntryInPath entry_in_path(const std::string& path) {
  const auto parts = split(without_trailing_slashes(path), '/');
  for (size_t i = parts.size(); i-- > 0;) {
    if (!parts[i].starts_with(kEntryPrefix)) continue;
    const bool snapshot = i + 2 < parts.size() && parts[i + 1] == "snapshots";
    return {repo_of_entry(parts[i]), snapshot ? parts[i + 2] : std::string()};
  }
  return {};
}

Result<ResolvedModel> resolve_directory(const std::string& path, std::string_view revision) {
  const EntryInPath entry = entry_in_path(path);
  if (!entry.repo.empty() && entry.commit.empty() && is_directory(path + "/snapshots")) {
    return resolve_entry(path, entry.repo, revision);
  }
  if (!entry.repo.empty()) return ResolvedModel{path, entry.repo, entry.commit};
  std::error_code error;
  const fs::path absolute = fs::canonical(path, error);
  const std::string name =
      error ? fs::path(path).filename().string() : absolute.filename().string();
  return ResolvedModel{path, name, {}};
}

}  // namespace

std::string hub_cache_directory(const HubEnv& env) {
  if (!env.hf_hub_cache.empty()) return env.hf_hub_cache;
  if (!env.huggingface_hub_cache.empty()) return env.huggingface_hub_cache;
  if (!env.hf_home.empty()) return env.hf_home + "/hub";
  if (!env.xdg_cache_home.empty()) return env.xdg_cache_home + "/huggingface/hub";
  return env.home + "/.cache/huggingface/hub";
}

Result<ResolvedModel> resolve_model(std::string_view argument, const HubEnv& env,
                                    std::string_view revision) {
  if (argument.empty() || argument.find('\0') != std::string_view::npos) {
    return fail("no model was named: give a directory or ORG/NAME");
  }
  const std::string path = without_trailing_slashes(argument);
  if (is_directory(path)) return resolve_directory(path, revision);
  std::error_code error;
  if (fs::exists(path, error)) {
    return fail(
        fmt::format("{} is a file; give the directory that holds config.json and the "
                    "safetensors files",
                    path));
  }
  if (!is_repo_id(argument)) {
    return fail(fmt::format("{}: no such directory, and not a Hub id (ORG/NAME)", argument),
                ErrorKind::kNotFound);
  }
  const std::string cache = hub_cache_directory(env);
  const std::string entry = fmt::format("{}/{}", cache, entry_name(argument));
  if (!is_directory(entry)) {
    return fail(fmt::format("{}: no such directory, and not in the Hub cache {}. To fetch it: {}",
                            argument, cache, download_command(argument, revision)),
                ErrorKind::kNotFound);
  }
  return resolve_entry(entry, argument, revision);
}

std::string fetch_command(const std::string& directory) {
  const EntryInPath entry = entry_in_path(directory);
  if (!entry.repo.empty()) return download_command(entry.repo, entry.commit);
  return fmt::format("hf download ORG/NAME --local-dir {}", directory);
}

}  // namespace hotset
