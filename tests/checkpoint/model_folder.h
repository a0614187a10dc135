// SPDX-License-Identifier: Apache-2.0
// A folder of one test, gone afterwards, and the whole load that tests put under stress.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/json_file.h"

namespace hotset {

class ModelFolder {
 public:
  explicit ModelFolder(const std::string& name)
      : path_(std::filesystem::path(::testing::TempDir()) /
              (name + "-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::string text() const { return path_.string(); }

  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream in(path_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void link(const std::string& target, const std::string& name) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::filesystem::create_symlink(target, path_ / name);
  }
  void copy_of(const std::string& dir) const {
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      std::filesystem::copy_file(entry.path(), path_ / entry.path().filename());
    }
  }

 private:
  std::filesystem::path path_;
};

// Opens the folder, reads its config and every tensor.
inline Status load_everything(const std::string& dir,
                              std::shared_ptr<const FileCalls> calls = system_file_calls()) {
  HS_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir, std::move(calls)));
  HS_ASSIGN_OR_RETURN(const Json config, read_json_file(checkpoint.directory(), "config.json"));
  std::vector<std::byte> bytes;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    bytes.resize(static_cast<size_t>(tensor.bytes));
    HS_RETURN_IF_ERROR(checkpoint.read(tensor, bytes));
  }
  return {};
}

}  // namespace hotset
