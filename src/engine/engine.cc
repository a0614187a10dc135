// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"

namespace hotset {
namespace {

constexpr const char* kShuttingDown = "the server is shutting down";

double steady_clock_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<int32_t> list_ending_ids(const SamplingParams& params,
                                     const std::vector<int32_t>& eos_ids) {
  std::vector<int32_t> ids = params.stop_token_ids;
  if (!params.ignore_eos) ids.insert(ids.end(), eos_ids.begin(), eos_ids.end());
  return ids;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::start(TokenModel& model, EngineOptions options) {
  if (options.num_valid_tokens <= 0 || options.num_valid_tokens > model.vocab_size()) {
    return fail(fmt::format("the tokenizer has {} tokens, the model has logits for {}",
                            options.num_valid_tokens, model.vocab_size()));
  }
  if (options.max_num_seqs == 0) return fail("max-num-seqs must be at least 1");
  HS_CHECK(model.max_decode_batch() >= 1, "a model that decodes nothing");
  if (!options.clock_s) options.clock_s = steady_clock_s;
  std::unique_ptr<Engine> engine(new Engine(model, std::move(options)));
  engine->thread_ = std::thread([raw = engine.get()] { raw->run(); });
  return engine;
}

Engine::Engine(TokenModel& model, EngineOptions options)
    : model_(model),
      options_(std::move(options)),
      kept_(options_.num_kept_sequences),
      max_batch_(std::min(options_.max_num_seqs, static_cast<size_t>(model.max_decode_batch()))),
      logits_(max_batch_ * static_cast<size_t>(model.vocab_size())),
      heads_(max_batch_) {
  chosen_.reserve(max_batch_);
  steps_.reserve(max_batch_);
}

Engine::~Engine() {
  stop();
}

Result<std::shared_ptr<TokenStream>> Engine::submit(Request request) {
  HS_RETURN_IF_ERROR(check(request));
  auto stream = std::make_shared<TokenStream>();
  const SamplingParams& params = request.params;
  std::vector<int32_t> ending_ids = list_ending_ids(params, options_.eos_ids);
  const int64_t room = model_.max_tokens() - static_cast<int64_t>(request.prompt_ids.size());

  const std::lock_guard lock(mutex_);
  if (lost_) return fail(*lost_);
  if (stopping_) return fail(kShuttingDown, ErrorKind::kResource);
  if (counters_.num_waiting >= static_cast<int64_t>(options_.max_queued)) {
    ++counters_.num_refused;
    return fail(fmt::format("the queue is full ({} requests are waiting); try again later",
                            counters_.num_waiting),
                ErrorKind::kResource);
  }
  const uint64_t seed = params.seed
                            ? static_cast<uint64_t>(*params.seed)
                            : options_.seed + static_cast<uint64_t>(counters_.num_submitted);
  Sampler sampler(params, seed, options_.num_valid_tokens, ending_ids, request.prompt_ids);
  auto sequence = std::make_unique<Sequence>(std::move(request), stream, std::move(sampler));
  sequence->ending_ids = std::move(ending_ids);
  sequence->max_output_tokens = std::min(room, sequence->request.params.max_tokens.value_or(room));
  sequence->submitted_s = now_s();
  inbox_.push_back(std::move(sequence));
  ++counters_.num_submitted;
  ++counters_.num_waiting;
  work_arrived_.notify_one();
  return stream;
}

Status Engine::check(const Request& request) const {
  if (request.prompt_ids.empty()) return fail("the prompt is empty");
  for (const int32_t id : request.prompt_ids) {
    if (id < 0 || id >= options_.num_valid_tokens) {
      return fail(fmt::format("prompt: token id {} is outside of the vocabulary (0 to {})", id,
                              options_.num_valid_tokens - 1));
    }
  }
  const auto num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  if (num_prompt_tokens >= model_.max_tokens()) {
    return fail(fmt::format("maximum context length is {} tokens, and the prompt alone has {}",
                            model_.max_tokens(), num_prompt_tokens));
  }
  return {};
}

void Engine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    work_arrived_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

EngineCounters Engine::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

std::optional<Error> Engine::device_lost() const {
  const std::lock_guard lock(mutex_);
  return lost_;
}

void Engine::lose_device(Error error) {
  const std::lock_guard lock(mutex_);
  lost_ = std::move(error);
  stopping_ = true;
}

void Engine::run() {
  while (true) {
    if (step()) continue;  // something ran; there may be more
    std::unique_lock lock(mutex_);
    work_arrived_.wait(lock, [this] { return stopping_ || !inbox_.empty(); });
    if (stopping_) break;
  }
  end_all();
}

void Engine::end_all() {
  take_inbox();
  const Error why = device_lost().value_or(Error{ErrorKind::kResource, kShuttingDown});
  for (const auto* list : {&running_, &waiting_}) {
    for (const auto& sequence : *list) {
      finish(*sequence, FinishReason::kError, why);
    }
  }
  running_.clear();
  waiting_.clear();
}

}  // namespace hotset
