// SPDX-License-Identifier: Apache-2.0
#include "bench_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace hotset {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t counted_bytes(const StageClock& clock) {
  int64_t bytes = 0;
  for (int i = 0; i < static_cast<int>(Stage::kNumStages); ++i) {
    bytes += clock[static_cast<Stage>(i)].bytes;
  }
  return bytes;
}

std::optional<ExpertWork> difference(const std::optional<ExpertWork>& before,
                                     const std::optional<ExpertWork>& after) {
  if (!before || !after) return std::nullopt;
  return ExpertWork{.choices = after->choices - before->choices,
                    .misses = after->misses - before->misses,
                    .fetched = after->fetched - before->fetched,
                    .foreseen = after->foreseen - before->foreseen,
                    .streamed_bytes = after->streamed_bytes - before->streamed_bytes,
                    .cpu_seconds = after->cpu_seconds - before->cpu_seconds,
                    .wait_seconds = after->wait_seconds - before->wait_seconds,
                    .fetch_share = after->fetch_share};
}

}  // namespace

BenchRunner::BenchRunner(LanguageModel& model, const BenchOptions& options,
                         std::vector<BenchTest> tests)
    : model_(model),
      options_(options),
      tests_(std::move(tests)),
      kind_(options.text == "drift" ? TextKind::kDrift : TextKind::kRandom) {
  int64_t most = 1;
  for (const BenchTest& test : tests_) most = std::max(most, test.num_seqs);
  logits_.resize(static_cast<size_t>(most * model.vocab_size()));
}

Result<std::variant<BenchRow, SkippedRow>> BenchRunner::measure(const BenchTest& test) {
  if (test.depth != depth_) sequences_.clear();
  depth_ = test.depth;
  if (auto why = too_long(test)) return SkippedRow{test, std::move(*why)};
  auto row = measure_row(test);
  if (row) return std::move(*row);
  if (row.error().kind != ErrorKind::kResource) return fail(std::move(row).error());
  sequences_.clear();  // of no use after an error
  return SkippedRow{test, row.error().message};
}

std::optional<std::string> BenchRunner::too_long(const BenchTest& test) const {
  int64_t length = test.depth + test.tokens;
  if (test.decode && test.depth > 0) {
    for (size_t s = 0; s < sequences_.size() && std::cmp_less(s, test.num_seqs); ++s) {
      length = std::max(length, sequences_[s].num_tokens + test.tokens);
    }
    length += options_.warmup + (options_.repeat - 1) * test.tokens;
    if (model_.gpu_backend() != nullptr) length += kStageSteps + 1;
  }
  if (length <= model_.max_tokens()) return std::nullopt;
  const bool can_grow = model_.max_tokens() < model_.config().max_position_embeddings;
  return fmt::format("{} tokens do not fit {} of {}{}", length,
                     can_grow ? "the context" : "the model's longest context", model_.max_tokens(),
                     can_grow ? " (--max-model-len)" : "");
}

template <typename Work>
Status BenchRunner::clocked(BenchRow& row, int64_t steps, const Work& work) {
  if (!row.stages) row.stages.emplace();
  model_.set_clock(&row.stages->clock);
  const Status status = work();
  model_.set_clock(nullptr);
  row.stages->steps += steps;
  return status;
}

Status BenchRunner::keep_row(BenchRow& row, const Status& stages) {
  if (stages || stages.error().kind == ErrorKind::kDeviceLost) return stages;
  row.stages = RowStages{.why_none = stages.error().message};
  sequences_.clear();  // of no use after an error
  return {};
}

Result<BenchRow> BenchRunner::measure_row(const BenchTest& test) {
  HS_RETURN_IF_ERROR(prepare(test));
  BenchRow row{.test = test, .seconds = {}, .bytes = 0, .experts = std::nullopt};
  HS_RETURN_IF_ERROR(test.decode ? measure_decode(row) : measure_prefill(row));
  return row;
}

// As many sequences as the row takes, all of them at its depth.
Status BenchRunner::prepare(const BenchTest& test) {
  while (std::ssize(sequences_) < test.num_seqs) {
    const uint64_t seed = options_.seed * 1000003u + sequences_.size();
    sequences_.push_back({.state = nullptr,
                          .text = SynthText(kind_, model_.vocab_size(), seed),
                          .index = sequences_.size()});
    HS_RETURN_IF_ERROR(restart(sequences_.back()));
  }
  return {};
}

// The text goes on; the state is a new one, at the depth.
Status BenchRunner::restart(Sequence& sequence) {
  sequence.state.reset();
  sequence.num_tokens = 0;
  const int64_t wanted = sequence_length(tests_, options_, depth_, sequence.index);
  HS_ASSIGN_OR_RETURN(sequence.state, model_.new_sequence(std::min(wanted, model_.max_tokens())));
  if (depth_ > 0) HS_RETURN_IF_ERROR(prefill(sequence, depth_));
  return {};
}

Result<double> BenchRunner::prefill(Sequence& sequence, int64_t num_tokens) {
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens));
  sequence.text.next(ids);
  const auto logits = std::span(logits_).first(static_cast<size_t>(model_.vocab_size()));
  const double start = now();
  HS_RETURN_IF_ERROR(model_.extend(*sequence.state, ids, logits));
  sequence.num_tokens += num_tokens;
  return now() - start;
}

// A prompt as long as a chunk warms up; each starts at the same depth.
Status BenchRunner::measure_prefill(BenchRow& row) {
  Sequence& sequence = sequences_.front();
  std::unique_ptr<SequenceState> snapshot;
  if (depth_ > 0) {
    HS_ASSIGN_OR_RETURN(snapshot, model_.snapshot(*sequence.state));
  }
  const auto back = [&]() -> Status {
    if (snapshot == nullptr) return restart(sequence);
    sequence.num_tokens = depth_;
    return model_.restore(*sequence.state, *snapshot);
  };
  HS_RETURN_IF_ERROR(prefill(sequence, std::min(row.test.tokens, model_.prefill_chunk())));
  const std::optional<ExpertWork> before = expert_work(model_, row.test.num_seqs);
  const bool on_gpu = before.has_value();
  const auto once = [&](bool counts) -> Status {
    HS_RETURN_IF_ERROR(back());
    HS_ASSIGN_OR_RETURN(const double seconds, prefill(sequence, row.test.tokens));
    if (counts) row.seconds.push_back(seconds);
    return {};
  };
  for (int64_t r = 0; r < options_.repeat; ++r) {
    HS_RETURN_IF_ERROR(on_gpu ? once(true) : clocked(row, 1, [&] { return once(true); }));
  }
  row.experts = difference(before, expert_work(model_, row.test.num_seqs));
  if (on_gpu) {
    HS_RETURN_IF_ERROR(keep_row(row, clocked(row, 1, [&] { return once(false); })));
    if (sequences_.empty()) return {};
  }
  return back();
}

// As an engine does it: of one sequence the largest logits suffice, where the model lists them.
Status BenchRunner::extend(std::span<const SequenceStep> steps, std::span<float> logits) {
  if (steps.size() == 1) {
    HS_ASSIGN_OR_RETURN(
        const bool has_head,
        model_.extend_head(*steps[0].sequence, {&steps[0].id, 1}, model_.vocab_size(), head_));
    if (has_head) return {};
  }
  return model_.extend_batch(steps, logits);
}

Result<double> BenchRunner::decode(int64_t num_seqs, int64_t num_tokens) {
  std::vector<std::vector<int32_t>> ids(static_cast<size_t>(num_seqs));
  std::vector<SequenceStep> steps;
  for (size_t s = 0; s < ids.size(); ++s) {
    ids[s].resize(static_cast<size_t>(num_tokens));
    sequences_[s].text.next(ids[s]);
    steps.push_back({.sequence = sequences_[s].state.get()});
    sequences_[s].num_tokens += num_tokens;
  }
  const auto logits = std::span(logits_).first(static_cast<size_t>(num_seqs * model_.vocab_size()));
  const double start = now();
  for (size_t n = 0; std::cmp_less(n, num_tokens); ++n) {
    for (size_t s = 0; s < ids.size(); ++s) steps[s].id = ids[s][n];
    HS_RETURN_IF_ERROR(extend(steps, logits));
  }
  return now() - start;
}

Status BenchRunner::measure_decode(BenchRow& row) {
  const auto back = [&]() -> Status {
    if (depth_ > 0) return {};
    for (int64_t s = 0; s < row.test.num_seqs; ++s) {
      HS_RETURN_IF_ERROR(restart(sequences_[static_cast<size_t>(s)]));
    }
    return {};
  };
  HS_RETURN_IF_ERROR(back());
  HS_RETURN_IF_ERROR(decode(row.test.num_seqs, options_.warmup));
  const std::optional<ExpertWork> before = expert_work(model_, row.test.num_seqs);
  const auto once = [&]() -> Status {
    HS_ASSIGN_OR_RETURN(const double seconds, decode(row.test.num_seqs, row.test.tokens));
    row.seconds.push_back(seconds);
    return {};
  };
  for (int64_t r = 0; r < options_.repeat; ++r) {
    HS_RETURN_IF_ERROR(back());
    HS_RETURN_IF_ERROR(before ? once() : clocked(row, row.test.tokens, once));
  }
  if (!before) {
    row.bytes = counted_bytes(row.stages->clock);
    return {};
  }
  row.experts = difference(before, expert_work(model_, row.test.num_seqs));
  HS_RETURN_IF_ERROR(back());
  return keep_row(row, measure_decode_stages(row));
}

// The first step records a graph with marks and is not counted.
Status BenchRunner::measure_decode_stages(BenchRow& row) {
  const int64_t steps = std::min(kStageSteps, row.test.tokens - 1);
  if (steps < 1) return {};
  const int64_t nodes = recorded_nodes(model_);
  const auto some = [&](int64_t count) -> Status {
    if (const auto seconds = decode(row.test.num_seqs, count); !seconds) {
      return fail(seconds.error());
    }
    return {};
  };
  HS_RETURN_IF_ERROR(clocked(row, 0, [&] { return some(1); }));
  row.stages->clock.reset();
  row.stages->graph_nodes = nodes;
  return clocked(row, steps, [&] { return some(steps); });
}

}  // namespace hotset
