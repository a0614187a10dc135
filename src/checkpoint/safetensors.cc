// SPDX-License-Identifier: Apache-2.0
// Every check of the container in one place. Where we are stricter than the reference reader (a
// tensor named twice, bytes before '{', unknown fields, dimensions above 2^63-1) it is because the
// format's own text forbids it or because nothing sensible can follow;
// tests/checkpoint/header_verdicts_test.cc lists every such case.
#include "checkpoint/safetensors.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "base/checked_math.h"
#include "base/utf8.h"

namespace hotset {
namespace {

struct DTypeRow {
  DType dtype;
  const char* name;
  int bits;
};
constexpr std::array kDTypes = {
    DTypeRow{DType::kBool, "BOOL", 8},
    DTypeRow{DType::kU8, "U8", 8},
    DTypeRow{DType::kI8, "I8", 8},
    DTypeRow{DType::kF8E4M3, "F8_E4M3", 8},
    DTypeRow{DType::kF8E5M2, "F8_E5M2", 8},
    DTypeRow{DType::kF8E8M0, "F8_E8M0", 8},
    DTypeRow{DType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 8},
    DTypeRow{DType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 8},
    DTypeRow{DType::kU16, "U16", 16},
    DTypeRow{DType::kI16, "I16", 16},
    DTypeRow{DType::kF16, "F16", 16},
    DTypeRow{DType::kBF16, "BF16", 16},
    DTypeRow{DType::kU32, "U32", 32},
    DTypeRow{DType::kI32, "I32", 32},
    DTypeRow{DType::kF32, "F32", 32},
    DTypeRow{DType::kU64, "U64", 64},
    DTypeRow{DType::kI64, "I64", 64},
    DTypeRow{DType::kF64, "F64", 64},
    DTypeRow{DType::kC64, "C64", 64},
    DTypeRow{DType::kF4, "F4", 4},
    DTypeRow{DType::kF6E2M3, "F6_E2M3", 6},
    DTypeRow{DType::kF6E3M2, "F6_E3M2", 6},
};

// What messages say: "model.safetensors: tensor 'a.b': shape: …". Names come from the file, so they
// are cut and made printable.
struct Where {
  std::string_view file;
  std::string_view tensor;
};

std::string printable(std::string_view name) {
  std::string out;
  for (const char c : name.substr(0, 200)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (name.size() > 200) out += "…";
  return utf8_replace_invalid(out);
}

tl::unexpected<Error> bad(const Where& where, std::string_view problem) {
  return fail(fmt::format("{}: tensor '{}': {}", where.file, printable(where.tensor), problem));
}

// "-0" is a float to the reference reader but an integer to ours; no honest header holds a minus
// sign outside of a string.
bool has_minus_outside_strings(std::string_view json) {
  if (json.find("-0") == std::string_view::npos) return false;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    if (in_string && json[i] == '\\') {
      ++i;
    } else if (json[i] == '"') {
      in_string = !in_string;
    } else if (!in_string && json[i] == '-') {
      return true;
    }
  }
  return false;
}

Result<int64_t> read_integer(const Where& where, const char* field,
                             const simdjson::dom::element& value) {
  uint64_t number = 0;
  if (value.get(number) != simdjson::SUCCESS) {
    return bad(where, fmt::format("{}: not a non-negative integer", field));
  }
  if (number > static_cast<uint64_t>(INT64_MAX)) {
    return bad(where, fmt::format("{}: {} is too large", field, number));
  }
  return static_cast<int64_t>(number);
}

Result<std::vector<int64_t>> read_integers(const Where& where, const char* field,
                                           const simdjson::dom::element& value) {
  simdjson::dom::array array;
  if (value.get(array) != simdjson::SUCCESS) {
    return bad(where, fmt::format("{}: not an array", field));
  }
  std::vector<int64_t> out;
  for (const simdjson::dom::element element : array) {
    HS_ASSIGN_OR_RETURN(const int64_t number, read_integer(where, field, element));
    out.push_back(number);
  }
  return out;
}

Result<DType> read_dtype(const Where& where, const simdjson::dom::element& value) {
  std::string_view name;
  if (value.get(name) != simdjson::SUCCESS) return bad(where, "dtype: not a string");
  const auto dtype = dtype_from_name(name);
  if (!dtype) return bad(where, fmt::format("dtype: unknown type '{}'", printable(name)));
  return *dtype;
}

// Bytes that the shape and dtype ask for; unsigned with the same order of checks as the reference.
Result<int64_t> expected_bytes(const Where& where, const TensorInfo& tensor) {
  uint64_t numel = 1;
  for (const int64_t dim : tensor.shape) {
    const auto next = checked_mul(numel, static_cast<uint64_t>(dim));
    if (!next) return bad(where, fmt::format("shape: {} overflows", shape_text(tensor.shape)));
    numel = *next;
  }
  const auto bits = checked_mul(numel, static_cast<uint64_t>(dtype_bits(tensor.dtype)));
  if (!bits) return bad(where, fmt::format("shape: {} overflows", shape_text(tensor.shape)));
  if (*bits % 8 != 0) {
    return bad(where, fmt::format("shape: {} of {} does not fill whole bytes",
                                  shape_text(tensor.shape), dtype_name(tensor.dtype)));
  }
  return static_cast<int64_t>(*bits / 8);
}

Result<TensorInfo> read_tensor(const Where& where, const simdjson::dom::element& value) {
  simdjson::dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return bad(where, "not an object");
  TensorInfo tensor;
  bool seen[3] = {false, false, false};
  constexpr std::array<const char*, 3> kFields = {"dtype", "shape", "data_offsets"};
  for (const auto& [key, field_value] : object) {
    const auto field = std::find(kFields.begin(), kFields.end(), key);
    if (field == kFields.end()) {
      return bad(where, fmt::format("unknown field '{}'", printable(key)));
    }
    bool& was_seen = seen[field - kFields.begin()];
    if (was_seen) return bad(where, fmt::format("{}: given twice", *field));
    was_seen = true;
    if (key == "dtype") {
      HS_ASSIGN_OR_RETURN(tensor.dtype, read_dtype(where, field_value));
    } else if (key == "shape") {
      HS_ASSIGN_OR_RETURN(tensor.shape, read_integers(where, "shape", field_value));
    } else {
      HS_ASSIGN_OR_RETURN(const auto offsets, read_integers(where, "data_offsets", field_value));
      if (offsets.size() != 2) {
        return bad(where, fmt::format("data_offsets: {} numbers, not 2", offsets.size()));
      }
      if (offsets[1] < offsets[0]) {
        return bad(where, fmt::format("data_offsets: [{}, {}] ends before it begins", offsets[0],
                                      offsets[1]));
      }
      tensor.offset = offsets[0];
      tensor.bytes = offsets[1] - offsets[0];
    }
  }
  for (size_t i = 0; i < 3; ++i) {
    if (!seen[i]) return bad(where, fmt::format("{} is missing", kFields[i]));
  }
  HS_ASSIGN_OR_RETURN(const int64_t bytes, expected_bytes(where, tensor));
  if (bytes != tensor.bytes) {
    return bad(where, fmt::format("data_offsets: {} bytes, but {} of shape {} has {}", tensor.bytes,
                                  dtype_name(tensor.dtype), shape_text(tensor.shape), bytes));
  }
  return tensor;
}

Status read_metadata(std::string_view file, const simdjson::dom::element& value,
                     std::map<std::string, std::string>& out) {
  if (value.is_null()) return {};
  simdjson::dom::object object;
  if (value.get(object) != simdjson::SUCCESS) {
    return fail(fmt::format("{}: __metadata__: not an object", file));
  }
  for (const auto& [key, text_value] : object) {
    std::string_view text;
    if (text_value.get(text) != simdjson::SUCCESS) {
      return fail(fmt::format("{}: __metadata__: '{}' is not a string", file, printable(key)));
    }
    out[std::string(key)] = std::string(text);
  }
  return {};
}

// The tensors tile the data buffer: no hole, no overlap, nothing after the last one.
Status check_tiling(std::vector<TensorInfo>& tensors, int64_t data_begin, int64_t file_size,
                    std::string_view file) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  int64_t next = 0;
  for (TensorInfo& tensor : tensors) {
    const Where where{file, tensor.name};
    if (tensor.offset != next) {
      return bad(where,
                 fmt::format("data_offsets: begins at {}, {} {}", tensor.offset,
                             tensor.offset < next ? "inside the tensor before it, which ends at"
                                                  : "leaving a hole after",
                             next));
    }
    const auto end = checked_add(tensor.offset, tensor.bytes);
    if (!end || *end > file_size - data_begin) {
      return bad(where, fmt::format("data_offsets: needs {} bytes of data, the file has {}; it is "
                                    "truncated: fetch it again",
                                    end.value_or(INT64_MAX), file_size - data_begin));
    }
    next = *end;
    tensor.offset += data_begin;
  }
  if (next != file_size - data_begin) {
    return fail(fmt::format("{}: {} bytes after the last tensor belong to none", file,
                            file_size - data_begin - next));
  }
  return {};
}

}  // namespace

const char* dtype_name(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype)].name;
}
int dtype_bits(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype)].bits;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeRow& row : kDTypes) {
    if (name == row.name) return row.dtype;
  }
  return std::nullopt;
}

int64_t TensorInfo::numel() const {
  return checked_numel(shape).value_or(0);
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.first(std::min<size_t>(shape.size(), 16)), ", "));
}

Result<int64_t> safetensors_header_length(std::span<const std::byte> first8, int64_t file_size,
                                          std::string_view file_name) {
  static_assert(std::endian::native == std::endian::little);
  if (file_size < 8 || first8.size() < 8) {
    return fail(
        fmt::format("{}: {} bytes are too few for a safetensors file", file_name, file_size));
  }
  uint64_t length = 0;
  std::memcpy(&length, first8.data(), sizeof(length));
  if (length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    return fail(
        fmt::format("{}: header length: {} is above the limit of {} bytes (is this a "
                    "safetensors file?)",
                    file_name, length, kMaxSafetensorsHeaderBytes));
  }
  if (static_cast<int64_t>(length) > file_size - 8) {
    return fail(
        fmt::format("{}: header length: {} bytes, the file has {} after the prefix; it is "
                    "truncated: fetch it again",
                    file_name, length, file_size - 8));
  }
  return static_cast<int64_t>(length);
}

Result<SafetensorsHeader> SafetensorsHeader::parse(std::string_view json, int64_t file_size,
                                                   std::string_view file_name) {
  if (json.empty() || json.front() != '{') {
    return fail(fmt::format("{}: header: does not begin with '{{'", file_name));
  }
  if (has_minus_outside_strings(json)) {
    return fail(fmt::format("{}: header: holds a negative number", file_name));
  }
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  const auto error = parser.parse(json.data(), json.size()).get(object);
  if (error != simdjson::SUCCESS) {
    return fail(fmt::format("{}: header: {}", file_name, simdjson::error_message(error)));
  }
  SafetensorsHeader header;
  header.tensors.reserve(object.size());
  std::unordered_set<std::string_view> names;
  names.reserve(object.size());
  for (const auto& [key, value] : object) {
    const std::string_view name = key;
    if (!utf8_is_valid(name)) return bad({file_name, name}, "the name is not valid UTF-8");
    if (!names.insert(name).second) return bad({file_name, name}, "defined twice");
    if (name == "__metadata__") {
      HS_RETURN_IF_ERROR(read_metadata(file_name, value, header.metadata));
      continue;
    }
    HS_ASSIGN_OR_RETURN(TensorInfo tensor, read_tensor({file_name, name}, value));
    tensor.name = name;
    header.tensors.push_back(std::move(tensor));
  }
  const int64_t data_begin = 8 + static_cast<int64_t>(json.size());
  HS_RETURN_IF_ERROR(check_tiling(header.tensors, data_begin, file_size, file_name));
  return header;
}

}  // namespace hotset
