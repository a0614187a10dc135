// SPDX-License-Identifier: Apache-2.0
// A large linear is packed in parts, which threads share: whoever packs them and in whatever order,
// bytes and loss are those of one pass over the whole; and a weight that 8 bits cannot hold is
// refused with the tensor's name.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "base/float16.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/pack.h"
#include "checkpoint/quant_config.h"
#include "checkpoint/safetensors_writer.h"

namespace hotset {
namespace {

constexpr int64_t kRows = 3001;
constexpr int64_t kCols = 1032;

std::vector<uint16_t> random_bf16() {
  std::mt19937 rng(5);
  std::vector<uint16_t> out(static_cast<size_t>(kRows * kCols));
  for (uint16_t& v : out) {
    v = float_to_bf16((static_cast<float>(rng() % 4001) - 2000.0f) * 1e-5f);
  }
  return out;
}

void write_linear(const ModelFolder& folder, const std::vector<uint16_t>& values) {
  auto writer = SafetensorsWriter::create(folder.text() + "/model.safetensors",
                                          {{"m.weight", DType::kBF16, {kRows, kCols}}});
  ASSERT_TRUE(writer) << writer.error().message;
  ASSERT_TRUE(writer->write(std::as_bytes(std::span(values))));
  ASSERT_TRUE(writer->finish());
}

struct Outcome {
  std::vector<std::byte> bytes;
  PackLoss loss;
};

// Parts are dealt to the threads in turn, the last part first.
Outcome pack_with(const Checkpoint& checkpoint, const LinearSource& source, const PackPlan& plan,
                  int num_threads) {
  const int64_t parts = num_pack_parts(source, plan);
  Outcome out{std::vector<std::byte>(static_cast<size_t>(plan.shape.bytes()), std::byte{0xa5}), {}};
  std::vector<PackAux> aux(static_cast<size_t>(parts));
  std::vector<std::thread> threads;
  for (int t = 0; t < num_threads; ++t) {
    threads.emplace_back([&, t] {
      PackScratch scratch;
      for (int64_t part = parts - 1 - t; part >= 0; part -= num_threads) {
        EXPECT_TRUE(pack_linear_part(checkpoint, source, plan, part, out.bytes, scratch,
                                     aux[static_cast<size_t>(part)]));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  PackAux joined;
  for (PackAux& part : aux) joined.join(std::move(part));
  out.loss = joined.loss;
  return out;
}

TEST(PackParts, SameBytesAndLossForAnyNumberOfThreads) {
  const ModelFolder folder("pack_parts");
  const std::vector<uint16_t> values = random_bf16();
  write_linear(folder, values);
  const Checkpoint checkpoint = Checkpoint::open(folder.text()).value();
  const LinearSource source = find_linear(checkpoint, QuantConfig(), "m", kRows, kCols).value();
  for (const bool at_8 : {false, true}) {
    const PackPlan plan = plan_packed(checkpoint, source, {.keep_16bit_at_8 = at_8}).value();
    ASSERT_GT(num_pack_parts(source, plan), 1);
    std::vector<float> wide;
    for (const uint16_t v : values) wide.push_back(bf16_to_float(v));
    std::vector<std::byte> slow(static_cast<size_t>(plan.shape.bytes()));
    pack_rows(plan.shape, wide.data(), 0, kRows, slow.data());

    std::vector<std::byte> whole(slow.size());
    PackScratch scratch;
    PackAux aux;
    ASSERT_TRUE(pack_linear(checkpoint, source, plan, whole, scratch, aux));
    EXPECT_TRUE(whole == slow) << "8 bits: " << at_8;
    for (const int threads : {1, 2, 3}) {
      const Outcome shared = pack_with(checkpoint, source, plan, threads);
      EXPECT_TRUE(shared.bytes == slow) << threads << " threads, 8 bits: " << at_8;
      EXPECT_EQ(shared.loss.sum_square_error, aux.loss.sum_square_error) << threads;
      EXPECT_EQ(shared.loss.sum_square_weight, aux.loss.sum_square_weight) << threads;
      EXPECT_EQ(shared.loss.max_error, aux.loss.max_error) << threads;
      EXPECT_EQ(shared.loss.max_weight, aux.loss.max_weight) << threads;
    }
    EXPECT_EQ(aux.loss.sum_square_error > 0, at_8);
  }
}

TEST(PackParts, WeightsThat8BitsCannotHoldAreRefused) {
  for (const float bad : {1e7f, -INFINITY, NAN}) {
    const ModelFolder folder("pack_refused");
    std::vector<uint16_t> values = random_bf16();
    values[static_cast<size_t>(2900 * kCols + 7)] = float_to_bf16(bad);
    write_linear(folder, values);
    const Checkpoint checkpoint = Checkpoint::open(folder.text()).value();
    const LinearSource source = find_linear(checkpoint, QuantConfig(), "m", kRows, kCols).value();
    const PackPlan plan = plan_packed(checkpoint, source, {.keep_16bit_at_8 = true}).value();
    std::vector<std::byte> bytes(static_cast<size_t>(plan.shape.bytes()));
    PackScratch scratch;
    PackAux aux;
    const Status status = pack_linear(checkpoint, source, plan, bytes, scratch, aux);
    ASSERT_FALSE(status) << bad;
    EXPECT_NE(status.error().message.find("'m.weight'"), std::string::npos);
    EXPECT_NE(status.error().message.find("8 bits"), std::string::npos) << status.error().message;
  }
}

}  // namespace
}  // namespace hotset
