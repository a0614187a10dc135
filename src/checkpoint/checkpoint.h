// SPDX-License-Identifier: Apache-2.0
// A model directory: config files beside one model.safetensors, or shards with an index.
//
// open() reads every header (not a byte of weights) and cross-checks index and shards; after that a
// tensor is a name, a place and a size. read() is a pread into the caller's memory, safe from many
// threads at once. Pickles and code (.bin, .pt, .py, auto_map) are never opened; they are named in
// warnings().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "checkpoint/safetensors.h"
#include "memory/file.h"

namespace hotset {

struct ShardIndex;

class Checkpoint {
 public:
  // `dir`: a directory (resolve_model in hub.h finds it). Missing shards are listed all at once.
  [[nodiscard]] static Result<Checkpoint> open(
      const std::string& dir, std::shared_ptr<const FileCalls> calls = system_file_calls());

  [[nodiscard]] const Directory& directory() const { return directory_; }
  [[nodiscard]] const std::vector<File>& shards() const { return shards_; }
  [[nodiscard]] const std::vector<TensorInfo>& tensors() const { return tensors_; }  // file order
  [[nodiscard]] int64_t total_bytes() const { return total_bytes_; }
  [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }

  // Pointers stay valid as long as the checkpoint (moving it included).
  [[nodiscard]] const TensorInfo* find(std::string_view name) const;
  // kNotFound names the tensor and the directory.
  [[nodiscard]] Result<const TensorInfo*> require(std::string_view name) const;

  // `to` has tensor.bytes bytes.
  [[nodiscard]] Status read(const TensorInfo& tensor, std::span<std::byte> to) const;
  // A part: bytes [begin, begin + to.size()) of the tensor.
  [[nodiscard]] Status read_range(const TensorInfo& tensor, int64_t begin,
                                  std::span<std::byte> to) const;
  // A floating tensor (F32, F16, BF16) of the given shape, widened to fp32: norms, A_log, biases.
  [[nodiscard]] Result<std::vector<float>> read_floats(std::string_view name,
                                                       std::span<const int64_t> shape) const;

 private:
  explicit Checkpoint(Directory directory) : directory_(std::move(directory)) {}
  [[nodiscard]] Status open_shards(const std::vector<std::string>& names);
  [[nodiscard]] Status build_directory(const ShardIndex* index);
  [[nodiscard]] Status note_ignored_files();

  Directory directory_;
  std::vector<File> shards_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, const TensorInfo*> by_name_;
  std::vector<std::string> warnings_;
  int64_t total_bytes_ = 0;
};

}  // namespace hotset
