// SPDX-License-Identifier: Apache-2.0
// What the engine's tests share: an engine over a scripted model that counts, and the reading of
// its answers.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "support/fake_model.h"

namespace hotset::test {

inline constexpr int32_t kEos = 9;
inline constexpr auto kSoon = std::chrono::seconds(10);

// The token after id x is x + 1, up to 200; after 200 comes kEos.
inline int32_t count_up(const std::vector<int32_t>& ids) {
  return ids.back() >= 200 ? kEos : ids.back() + 1;
}

struct EngineFixture {
  explicit EngineFixture(EngineOptions options = {}, FakeModelOptions model_options = {})
      : model(model_options, count_up) {
    options.num_valid_tokens = 300;
    options.eos_ids = {kEos};
    engine = std::move(Engine::start(model, options)).value();
  }
  ~EngineFixture() { model.open_gate(); }

  std::shared_ptr<TokenStream> submit(std::vector<int32_t> prompt, SamplingParams params = {}) {
    params.temperature = 0;
    auto stream = engine->submit({"id", std::move(prompt), params});
    EXPECT_TRUE(stream.has_value()) << stream.error().message;
    return stream ? *stream : nullptr;
  }

  FakeModel model;
  std::unique_ptr<Engine> engine;
};

struct Outcome {
  std::vector<int32_t> tokens;
  FinishReason finish = FinishReason::kError;
  Error error;
  RequestStats stats;
};

inline Outcome read_all(TokenStream& stream) {
  Outcome out;
  while (true) {
    const auto event = stream.next_within(kSoon);
    if (!event) {
      ADD_FAILURE() << "the stream never ended";
      return out;
    }
    if (event->token) out.tokens.push_back(*event->token);
    if (!event->finish) continue;
    out.finish = *event->finish;
    out.error = event->error;
    out.stats = event->stats;
    return out;
  }
}

inline SamplingParams with_max_tokens(int64_t max_tokens) {
  SamplingParams params;
  params.max_tokens = max_tokens;
  return params;
}

}  // namespace hotset::test
