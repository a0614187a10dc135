// SPDX-License-Identifier: Apache-2.0
// Cuts the list of tensors into shards and writes them: all threads fill a batch of blocks, then
// the batch goes to the file in order.
#include "synth.h"

#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/cpu/worker_pool.h"
#include "synth_fill.h"
#include "synth_model.h"
#include "synth_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace hotset {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBatchBytes = int64_t{64} << 20;

struct Shard {
  std::string file;
  size_t begin = 0;  // tensors
  size_t end = 0;
};

std::vector<Shard> cut_shards(const std::vector<SynthTensor>& tensors, int64_t shard_bytes) {
  std::vector<Shard> shards;
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (shards.empty() || bytes + tensors[i].bytes > shard_bytes) {
      shards.push_back({.file = {}, .begin = i, .end = i});
      bytes = 0;
    }
    bytes += tensors[i].bytes;
    shards.back().end = i + 1;
  }
  for (size_t s = 0; s < shards.size(); ++s) {
    shards[s].file = shards.size() == 1
                         ? "model.safetensors"
                         : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
  }
  return shards;
}

Status write_text(const fs::path& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return fail(path.string() + ": cannot be created", ErrorKind::kResource);
  const size_t written = std::fwrite(text.data(), 1, text.size(), file);
  if (std::fclose(file) != 0 || written != text.size()) {
    return fail(path.string() + ": could not be written; is the disk full?", ErrorKind::kResource);
  }
  return {};
}

struct Block {
  size_t tensor;
  int64_t index;
  std::span<std::byte> out;
};

class ShardWriter {
 public:
  ShardWriter(const std::vector<SynthTensor>& tensors, const SynthOptions& options,
              const std::function<void(const SynthProgress&)>& progress, SynthProgress state)
      : tensors_(tensors), options_(options), progress_(progress), state_(std::move(state)) {
    buffer_.resize(kBatchBytes);
  }

  Status write(const Shard& shard) {
    std::vector<SafetensorsWriter::Entry> entries;
    for (size_t i = shard.begin; i < shard.end; ++i) entries.push_back(tensors_[i].entry);
    const std::string path = (fs::path(options_.directory) / shard.file).string();
    HS_ASSIGN_OR_RETURN(auto writer,
                        SafetensorsWriter::create(path, std::move(entries), {{"format", "pt"}}));
    state_.file = shard.file;
    for (size_t i = shard.begin; i < shard.end; ++i) {
      for (int64_t at = 0, index = 0; at < tensors_[i].bytes; at += kSynthBlockBytes, ++index) {
        const int64_t size = std::min(kSynthBlockBytes, tensors_[i].bytes - at);
        if (used_ + size > kBatchBytes) HS_RETURN_IF_ERROR(flush(writer));
        blocks_.push_back({i, index, {buffer_.data() + used_, static_cast<size_t>(size)}});
        used_ += size;
      }
    }
    HS_RETURN_IF_ERROR(flush(writer));
    return writer.finish();
  }

 private:
  Status flush(SafetensorsWriter& writer) {
    std::atomic<size_t> next{0};
    pool_.run([&](int, int) {
      for (size_t b = next++; b < blocks_.size(); b = next++) {
        const Block& block = blocks_[b];
        fill_block(tensors_[block.tensor], (options_.seed << 32) + block.tensor, block.index,
                   block.out);
      }
    });
    HS_RETURN_IF_ERROR(writer.write({buffer_.data(), static_cast<size_t>(used_)}));
    state_.bytes_done += used_;
    used_ = 0;
    blocks_.clear();
    if (progress_) progress_(state_);
    return {};
  }

  const std::vector<SynthTensor>& tensors_;
  const SynthOptions& options_;
  const std::function<void(const SynthProgress&)>& progress_;
  SynthProgress state_;
  cpu::WorkerPool pool_{0, false};
  std::vector<std::byte> buffer_;
  std::vector<Block> blocks_;
  int64_t used_ = 0;
};

Status prepare_directory(const SynthOptions& options, int64_t total_bytes) {
  std::error_code error;
  if (options.directory.empty()) return fail("-o: a directory to write to is needed");
  const bool has_bits =
      options.code_bits == 4 ||
      (options.code_bits == 8 && options.format == SynthFormat::kCompressedTensors);
  if (!has_bits) return fail(fmt::format("codes of {} bits are not written", options.code_bits));
  fs::create_directories(options.directory, error);
  if (error) {
    return fail(fmt::format("{}: cannot be created: {}", options.directory, error.message()),
                ErrorKind::kResource);
  }
  if (fs::exists(fs::path(options.directory) / "config.json", error)) {
    return fail(options.directory + ": holds a checkpoint already; choose another directory");
  }
  const fs::space_info space = fs::space(options.directory, error);
  constexpr int64_t kMargin = int64_t{256} << 20;  // headers, index, and something to live on
  if (!error && space.available < static_cast<uintmax_t>(total_bytes + kMargin)) {
    return fail(fmt::format("{}: {:.1f} GB are needed, {:.1f} GB are free", options.directory,
                            static_cast<double>(total_bytes) / 1e9,
                            static_cast<double>(space.available) / 1e9),
                ErrorKind::kResource);
  }
  return {};
}

Status write_stand_in_tokenizer(const SynthOptions& options, int64_t vocab_size) {
  const fs::path directory = options.directory;
  HS_RETURN_IF_ERROR(write_text(directory / "tokenizer.json", stand_in_tokenizer_json(vocab_size)));
  HS_RETURN_IF_ERROR(
      write_text(directory / "tokenizer_config.json", stand_in_tokenizer_config_json()));
  return write_text(directory / "chat_template.jinja", stand_in_chat_template());
}

// The model's special tokens become those of the tokenizer that is to be copied.
Status read_special_tokens(const SynthOptions& options, SynthModel& model) {
  if (options.tokenizer.empty()) return {};
  const fs::path file = fs::path(options.tokenizer) / "tokenizer.json";
  fs::path config = fs::path(options.tokenizer) / "tokenizer_config.json";
  std::error_code error;
  if (!fs::exists(file, error)) {
    return fail(options.tokenizer + ": no tokenizer.json there", ErrorKind::kNotFound);
  }
  if (!fs::exists(config, error)) config.clear();
  HS_ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::load(file.string(), config.string()));
  if (tokenizer.vocab_size() > model.vocab_size) {
    return fail(fmt::format("--tokenizer {}: has {} tokens, but --like {} a vocabulary of {}",
                            options.tokenizer, tokenizer.vocab_size(), model.name,
                            model.vocab_size));
  }
  model.bos_token_id = tokenizer.bos_id().value_or(-1);
  model.eos_token_id = tokenizer.eos_id().value_or(-1);
  return {};
}

Status copy_tokenizer(const SynthOptions& options) {
  std::error_code error;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "special_tokens_map.json", "vocab.json", "merges.txt"}) {
    const fs::path from = fs::path(options.tokenizer) / name;
    if (!fs::exists(from, error)) continue;
    fs::copy_file(from, fs::path(options.directory) / name, error);
    if (error) {
      return fail(fmt::format("{}: {}", from.string(), error.message()), ErrorKind::kResource);
    }
  }
  return {};
}

Status write_index(const SynthOptions& options, const std::vector<SynthTensor>& tensors,
                   const std::vector<Shard>& shards, int64_t total_bytes) {
  if (shards.size() < 2) return {};
  std::string text =
      fmt::format("{{\n  \"metadata\": {{\"total_size\": {}}},\n  \"weight_map\": {{", total_bytes);
  const char* separator = "\n";
  for (const Shard& shard : shards) {
    for (size_t i = shard.begin; i < shard.end; ++i) {
      text += fmt::format("{}    \"{}\": \"{}\"", separator, tensors[i].entry.name, shard.file);
      separator = ",\n";
    }
  }
  text += "\n  }\n}\n";
  return write_text(fs::path(options.directory) / "model.safetensors.index.json", text);
}

}  // namespace

Result<SynthFormat> parse_synth_format(std::string_view name) {
  constexpr std::pair<std::string_view, SynthFormat> kNames[] = {
      {"bf16", SynthFormat::kBf16}, {"gptq", SynthFormat::kGptq},
      {"awq", SynthFormat::kAwq},   {"compressed-tensors", SynthFormat::kCompressedTensors},
      {"nf4", SynthFormat::kNf4},   {"fp8", SynthFormat::kFp8}};
  for (const auto& [text, format] : kNames) {
    if (text == name) return format;
  }
  return fail(fmt::format(
      "--format {}: choose one of gptq, awq, compressed-tensors, nf4, fp8, bf16", name));
}

Result<double> parse_synth_routing(std::string_view text) {
  if (text == "uniform") return 0.0;
  constexpr std::string_view kPrefix = "zipf:";
  if (text.starts_with(kPrefix)) {
    const std::string_view number = text.substr(kPrefix.size());
    double exponent = -1.0;
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), exponent);
    if (error == std::errc() && end == number.data() + number.size() && exponent >= 0.0 &&
        exponent <= 4.0) {
      return exponent;
    }
  }
  return fail(fmt::format("--routing {}: must be uniform or zipf:S with S from 0 to 4", text));
}

Status write_synthetic_checkpoint(const SynthOptions& options,
                                  const std::function<void(const SynthProgress&)>& progress) {
  HS_ASSIGN_OR_RETURN(SynthModel model, find_synth_model(options));
  HS_RETURN_IF_ERROR(read_special_tokens(options, model));
  const std::vector<SynthTensor> tensors = plan_synth_tensors(model, options);
  SynthProgress state;
  state.num_tensors = std::ssize(tensors);
  for (const SynthTensor& tensor : tensors) state.bytes_total += tensor.bytes;
  HS_RETURN_IF_ERROR(prepare_directory(options, state.bytes_total));
  HS_RETURN_IF_ERROR(options.tokenizer.empty() ? write_stand_in_tokenizer(options, model.vocab_size)
                                               : copy_tokenizer(options));
  const std::vector<Shard> shards = cut_shards(tensors, options.shard_bytes);
  {
    ShardWriter writer(tensors, options, progress, state);
    for (const Shard& shard : shards) HS_RETURN_IF_ERROR(writer.write(shard));
  }
  HS_RETURN_IF_ERROR(write_index(options, tensors, shards, state.bytes_total));
  const nlohmann::ordered_json generation = {
      {"do_sample", true}, {"temperature", 0.7}, {"top_k", 20}, {"top_p", 0.8}};
  const fs::path directory = options.directory;
  HS_RETURN_IF_ERROR(write_text(directory / "generation_config.json", generation.dump(2) + "\n"));
  // Last: its presence says that the checkpoint is complete.
  return write_text(directory / "config.json", synth_config_json(model, options));
}

}  // namespace hotset
