// SPDX-License-Identifier: Apache-2.0
// Opening: index, shards, headers, cross-checks; in that order so that the message a user sees is
// about the first thing to repair, with everything that is missing in one list.
#include "checkpoint/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/float16.h"
#include "checkpoint/hub.h"
#include "checkpoint/json_file.h"
#include "checkpoint/shard_index.h"

namespace hotset {
namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// "a, b, c and 17 more"
std::string listed(const std::vector<std::string>& names, size_t at_most = 50) {
  const size_t shown = std::min(names.size(), at_most);
  std::string out = fmt::format("{}", fmt::join(names.begin(), names.begin() + shown, ", "));
  if (names.size() > shown) out += fmt::format(" and {} more", names.size() - shown);
  return out;
}

Result<SafetensorsHeader> read_header(const File& file) {
  std::array<std::byte, 8> first8{};
  if (file.size() >= 8) HS_RETURN_IF_ERROR(file.read_at(0, first8));
  HS_ASSIGN_OR_RETURN(const int64_t length,
                      safetensors_header_length(first8, file.size(), file.path()));
  std::string json(static_cast<size_t>(length), '\0');
  HS_RETURN_IF_ERROR(file.read_at(8, std::as_writable_bytes(std::span(json.data(), json.size()))));
  return SafetensorsHeader::parse(json, file.size(), file.path());
}

bool is_code_or_pickle(std::string_view name) {
  constexpr std::array<std::string_view, 7> kEndings = {".bin", ".pt",     ".pth", ".ckpt",
                                                        ".pkl", ".pickle", ".py"};
  return std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

tl::unexpected<Error> no_weights(const Directory& dir) {
  const std::string cure = fetch_command(dir.path());
  return fail(fmt::format("{}: neither {} nor {} is here; only safetensors checkpoints are read. "
                          "To fetch them: {}",
                          dir.path(), kSingleFile, kIndexFile, cure),
              ErrorKind::kNotFound);
}

void widen(const TensorInfo& tensor, const std::vector<std::byte>& raw, std::vector<float>& out) {
  for (size_t i = 0; i < out.size(); ++i) {
    if (tensor.dtype == DType::kF32) {
      std::memcpy(&out[i], raw.data() + 4 * i, 4);
      continue;
    }
    uint16_t half = 0;
    std::memcpy(&half, raw.data() + 2 * i, 2);
    out[i] = tensor.dtype == DType::kF16 ? half_to_float(half) : bf16_to_float(half);
  }
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::string& dir,
                                    std::shared_ptr<const FileCalls> calls) {
  HS_ASSIGN_OR_RETURN(Directory directory, Directory::open(dir, std::move(calls)));
  Checkpoint checkpoint(std::move(directory));
  // As transformers does it: a single file wins over an index that was left beside it.
  if (checkpoint.directory_.contains(kSingleFile)) {
    HS_RETURN_IF_ERROR(checkpoint.open_shards({std::string(kSingleFile)}));
    HS_RETURN_IF_ERROR(checkpoint.build_directory(nullptr));
  } else {
    if (!checkpoint.directory_.contains(kIndexFile)) return no_weights(checkpoint.directory_);
    HS_ASSIGN_OR_RETURN(const std::string text,
                        read_small_file(checkpoint.directory_, kIndexFile, kMaxIndexBytes));
    HS_ASSIGN_OR_RETURN(const ShardIndex index,
                        ShardIndex::parse(text, fmt::format("{}/{}", dir, kIndexFile)));
    HS_RETURN_IF_ERROR(checkpoint.open_shards(index.shards));
    HS_RETURN_IF_ERROR(checkpoint.build_directory(&index));
  }
  HS_RETURN_IF_ERROR(checkpoint.note_ignored_files());
  return checkpoint;
}

Status Checkpoint::open_shards(const std::vector<std::string>& names) {
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    if (!directory_.contains(name)) missing.push_back(name);
  }
  if (!missing.empty()) {
    return fail(fmt::format("{}: {} of {} shards are missing: {}. To fetch them: {}",
                            directory_.path(), missing.size(), names.size(), listed(missing),
                            fetch_command(directory_.path())),
                ErrorKind::kNotFound);
  }
  shards_.reserve(names.size());
  for (const std::string& name : names) {
    HS_ASSIGN_OR_RETURN(File file, directory_.open_file(name));
    HS_ASSIGN_OR_RETURN(SafetensorsHeader header, read_header(file));
    for (TensorInfo& tensor : header.tensors) {
      tensor.shard = static_cast<uint32_t>(shards_.size());
      total_bytes_ += tensor.bytes;
      tensors_.push_back(std::move(tensor));
    }
    shards_.push_back(std::move(file));
  }
  return {};
}

Status Checkpoint::build_directory(const ShardIndex* index) {
  by_name_.reserve(tensors_.size());
  for (const TensorInfo& tensor : tensors_) {
    const auto [at, fresh] = by_name_.try_emplace(tensor.name, &tensor);
    if (!fresh) {
      return fail(fmt::format("tensor '{}' is in two shards: {} and {}", tensor.name,
                              shards_[at->second->shard].path(), shards_[tensor.shard].path()));
    }
  }
  if (index == nullptr) return {};
  for (const auto& [name, shard] : index->tensors) {
    const TensorInfo* tensor = find(name);
    if (tensor == nullptr || tensor->shard != shard) {
      return fail(fmt::format(
          "{}/{}: weight_map: tensor '{}' is not in {}{}", directory_.path(), kIndexFile, name,
          index->shards[shard],
          tensor != nullptr ? fmt::format(" but in {}", index->shards[tensor->shard]) : ""));
    }
  }
  if (index->tensors.size() != tensors_.size()) {
    warnings_.push_back(fmt::format("{}: {} tensors of the shards are not in weight_map",
                                    kIndexFile, tensors_.size() - index->tensors.size()));
  }
  return {};
}

Status Checkpoint::note_ignored_files() {
  HS_ASSIGN_OR_RETURN(const std::vector<std::string> names, directory_.names());
  std::vector<std::string> ignored;
  std::copy_if(names.begin(), names.end(), std::back_inserter(ignored), is_code_or_pickle);
  if (!ignored.empty()) {
    warnings_.push_back(fmt::format("never opened (code or pickles): {}", listed(ignored, 20)));
  }
  if (!directory_.contains("config.json")) return {};
  HS_ASSIGN_OR_RETURN(const Json config, read_json_file(directory_, "config.json"));
  for (const char* key : {"auto_map", "_attn_implementation_internal", "custom_pipelines"}) {
    if (config.contains(key)) {
      warnings_.push_back(fmt::format("config.json: {} asks for foreign code; it is ignored", key));
    }
  }
  return {};
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : at->second;
}

Result<const TensorInfo*> Checkpoint::require(std::string_view name) const {
  const TensorInfo* tensor = find(name);
  if (tensor == nullptr) {
    return fail(fmt::format("{}: tensor '{}' is missing", directory_.path(), name),
                ErrorKind::kNotFound);
  }
  return tensor;
}

Status Checkpoint::read(const TensorInfo& tensor, std::span<std::byte> to) const {
  if (static_cast<int64_t>(to.size()) != tensor.bytes) {
    return fail(fmt::format("tensor '{}': {} bytes do not fit into {}", tensor.name, tensor.bytes,
                            to.size()),
                ErrorKind::kInternal);
  }
  return read_range(tensor, 0, to);
}

Status Checkpoint::read_range(const TensorInfo& tensor, int64_t begin,
                              std::span<std::byte> to) const {
  const auto bytes = static_cast<int64_t>(to.size());
  if (begin < 0 || begin > tensor.bytes || bytes > tensor.bytes - begin) {
    return fail(
        fmt::format("tensor '{}': bytes {}+{} of {}", tensor.name, begin, bytes, tensor.bytes),
        ErrorKind::kInternal);
  }
  auto status = shards_[tensor.shard].read_at(tensor.offset + begin, to);
  if (!status) {
    Error error = std::move(status).error();
    error.message += fmt::format(" (tensor '{}')", tensor.name);
    return fail(std::move(error));
  }
  return {};
}

Result<std::vector<float>> Checkpoint::read_floats(std::string_view name,
                                                   std::span<const int64_t> shape) const {
  HS_ASSIGN_OR_RETURN(const TensorInfo* tensor, require(name));
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
    return fail(fmt::format("tensor '{}': shape {}, expected {}", name, shape_text(tensor->shape),
                            shape_text(shape)));
  }
  if (tensor->dtype != DType::kF32 && tensor->dtype != DType::kF16 &&
      tensor->dtype != DType::kBF16) {
    return fail(fmt::format("tensor '{}': dtype {}, expected F32, F16 or BF16", name,
                            dtype_name(tensor->dtype)));
  }
  std::vector<std::byte> raw(static_cast<size_t>(tensor->bytes));
  HS_RETURN_IF_ERROR(read(*tensor, raw));
  std::vector<float> out(static_cast<size_t>(tensor->numel()));
  widen(*tensor, raw, out);
  return out;
}

}  // namespace hotset
