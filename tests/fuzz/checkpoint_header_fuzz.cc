// SPDX-License-Identifier: Apache-2.0
// Any bytes as a safetensors file: refused with a message that names the file, or a directory whose
// tensors tile the data exactly.
#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/check.h"
#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file_size = static_cast<int64_t>(size);
  const auto length =
      hotset::safetensors_header_length(bytes.first(std::min<size_t>(8, size)), file_size, "fuzz");
  // The length is hard to guess by mutation, so the rest is also read as a header of its own.
  const std::string_view rest(reinterpret_cast<const char*>(data) + std::min<size_t>(8, size),
                              size - std::min<size_t>(8, size));
  for (const bool whole : {false, true}) {
    if (!whole && !length) continue;
    const std::string_view json = whole ? rest : rest.substr(0, static_cast<size_t>(*length));
    const int64_t data_begin = 8 + static_cast<int64_t>(json.size());
    const int64_t end = whole ? data_begin + 1024 : file_size;
    const auto header = hotset::SafetensorsHeader::parse(json, end, "fuzz");
    if (!header) {
      HS_CHECK(header.error().message.starts_with("fuzz: "), "{}", header.error().message);
      continue;
    }
    int64_t next = data_begin;
    for (const hotset::TensorInfo& tensor : header->tensors) {
      HS_CHECK(tensor.offset == next && tensor.bytes >= 0, "'{}' at {}", tensor.name,
               tensor.offset);
      next += tensor.bytes;
    }
    HS_CHECK(next == end, "{} of {}", next, end);
  }
  return 0;
}
