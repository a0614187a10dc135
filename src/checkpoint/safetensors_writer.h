// SPDX-License-Identifier: Apache-2.0
// Writes a safetensors file front to back: the directory first, then the tensors in the order that
// was declared. For tools (synthetic checkpoints, logit dumps); nothing is held in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/safetensors.h"

namespace hotset {

class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
  };

  // Creates the file and writes its header. The tensors lie in the file in the given order.
  [[nodiscard]] static Result<SafetensorsWriter> create(
      const std::string& path, std::vector<Entry> entries,
      const std::map<std::string, std::string>& metadata = {});

  // Appends bytes of the data buffer; tensor boundaries need not be respected.
  [[nodiscard]] Status write(std::span<const std::byte> bytes);
  // Fails unless exactly the declared bytes were written.
  [[nodiscard]] Status finish();

 private:
  struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  SafetensorsWriter() = default;

  std::unique_ptr<std::FILE, Closer> file_;
  std::string path_;
  int64_t left_ = 0;  // declared bytes not yet written
};

// The header of such a file: length prefix and JSON, padded to a multiple of 8.
[[nodiscard]] Result<std::string> safetensors_header_bytes(
    const std::vector<SafetensorsWriter::Entry>& entries,
    const std::map<std::string, std::string>& metadata, int64_t* data_bytes);

}  // namespace hotset
