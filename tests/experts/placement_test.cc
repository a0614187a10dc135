// SPDX-License-Identifier: Apache-2.0
#include "experts/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace hotset {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kGiB = int64_t{1} << 30;

// Round numbers, so that a sum can be checked by eye: 10 + 4·1·64Ki + 1 + 1 + 1 + 1.
PlacementInput small() {
  PlacementInput in;
  in.gpu_free_bytes = 20 * kGiB;
  in.ram_available_bytes = 100 * kGiB;
  in.dense = {.bits = 16, .stored_bytes = 8 * kGiB, .read_bytes = 6 * kGiB};
  in.kv_token_bytes = 64 << 10;
  in.max_model_len = 16384;  // 1 GiB
  in.state_bytes = kGiB;
  in.workspace_bytes = kGiB;
  in.graph_bytes = kGiB;
  in.gpu_margin_bytes = kGiB;
  in.min_slots = 64;
  in.bank_bytes = 32 * kGiB;
  in.dense.host_bytes = 4 * kGiB;
  in.host_bytes = 2 * kGiB;
  in.ram_margin_bytes = 2 * kGiB;
  in.load = {.num_layers = 8,
             .num_experts = 128,
             .top_k = 8,
             .expert_bytes = 32 << 20,  // 32 GiB in all
             .dense_bytes = 0,
             .state_kv_bytes = 1e8,
             .num_kernels = 80};
  in.rates = {.gpu_bytes_per_s = 900e9,
              .cpu_bytes_per_s = 66e9,
              .cpu_overlapped_bytes_per_s = 50e9,
              .pcie_bytes_per_s = 25e9,
              .pcie_overlapped_bytes_per_s = 25e9,
              .host_bytes_per_s = 75e9,
              .cpu_flops = 4e12,
              .gpu_flops = 60e12,
              .handshake_s = 5e-6,
              .fetch_s = 5e-6,
              .node_s = 1e-6};
  return in;
}

std::string refusal(const PlacementInput& in) {
  const auto plan = plan_placement(in);
  return plan ? "accepted:\n" + to_text(*plan) : plan.error().message;
}

TEST(Placement, GivesWhatIsLeftToSlots) {
  const auto plan = plan_placement(small());
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->num_slots, 7 * 32);  // 20 - 13 GiB, 32 a GiB
  EXPECT_EQ(plan->gpu_used_bytes, 20 * kGiB);
  EXPECT_EQ(plan->gpu_budget_bytes, 20 * kGiB);
  EXPECT_EQ(plan->ram_used_bytes, 40 * kGiB);
  EXPECT_NEAR(plan->cached_share, 224.0 / 1024, 1e-12);
  EXPECT_NEAR(plan->expected_hit_rate, expected_hit_rate(224.0 / 1024), 1e-12);
  DecodeLoad load = small().load;
  load.dense_bytes = 6.0 * kGiB;
  EXPECT_DOUBLE_EQ(plan->expected_tok_s,
                   expected_decode_tok_s(small().rates, load, plan->expected_hit_rate));
  const std::string text = to_text(*plan);
  for (const char* part :
       {"dense, 16 bits", "224 expert slots", "7.00 GiB", "35.0 %", "unused", "tokens/s"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  int64_t sum = 0;
  for (const PlacementLine& line : plan->gpu) sum += line.bytes;
  EXPECT_EQ(sum, plan->gpu_used_bytes);
}

TEST(Placement, ExactlyFitsAndOneByteLessDoesNot) {
  PlacementInput in = small();
  in.gpu_free_bytes = 15 * kGiB;  // 13 and 64 slots of 32 MiB
  const auto plan = plan_placement(in);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->num_slots, 64);
  EXPECT_EQ(plan->gpu_used_bytes, in.gpu_free_bytes);
  in.gpu_free_bytes -= 1;
  EXPECT_THAT(refusal(in), HasSubstr("15.00 GiB"));

  in = small();
  in.ram_available_bytes = 40 * kGiB;
  EXPECT_TRUE(plan_placement(in));
  in.ram_available_bytes -= 1;
  EXPECT_THAT(refusal(in), HasSubstr("RAM: experts 32.00 GiB"));
}

TEST(Placement, TheFlagBoundsWhatIsFreeAndIsNamedWhenItIsTheReason) {
  PlacementInput in = small();
  in.gpu_memory_bytes = 16 * kGiB;
  EXPECT_EQ(plan_placement(in)->num_slots, 3 * 32);
  in.gpu_memory_bytes = 64 * kGiB;
  EXPECT_EQ(plan_placement(in)->num_slots, 7 * 32) << "no more than there is";
  in.gpu_memory_bytes = 14 * kGiB;
  EXPECT_THAT(refusal(in), HasSubstr("14.00 GiB may be used (--gpu-memory; 20.00 GiB are free): "
                                     "raise --gpu-memory to 15GiB"));
  EXPECT_THAT(refusal(in), HasSubstr("dense, 16 bits 8.00 GiB + KV 1.00 GiB"));

  in.graph_bytes += 3 << 20;
  EXPECT_THAT(refusal(in), HasSubstr("raise --gpu-memory to 15.01GiB"));

  in = small();
  in.ram_bytes = 39 * kGiB;
  EXPECT_THAT(refusal(in), HasSubstr("raise --ram to 40GiB"));
}

// Following the advice must work, and one step less must not.
TEST(Placement, TheContextItSuggestsFits) {
  PlacementInput in = small();
  in.gpu_free_bytes = 18 * kGiB;
  in.max_model_len = 262144;  // 16 GiB
  const std::string text = refusal(in);
  EXPECT_THAT(text, HasSubstr("lower --max-model-len to 65536"));
  EXPECT_THAT(text, Not(HasSubstr("--gpu-memory to")));
  in.max_model_len = 65536;
  EXPECT_TRUE(plan_placement(in));
  in.max_model_len = 65537;
  EXPECT_FALSE(plan_placement(in));
}

TEST(Placement, WhatNoFlagCanMendSaysSo) {
  PlacementInput in = small();
  in.gpu_free_bytes = 4 * kGiB;
  in.dense.bits = 8;
  EXPECT_THAT(refusal(in), HasSubstr("a GPU with 15.00 GiB free is needed"));
  in.gpu_free_bytes = 0;
  EXPECT_THAT(refusal(in), HasSubstr("0 MiB may be used"));
  in = small();
  in.ram_available_bytes = kGiB;
  EXPECT_THAT(refusal(in), HasSubstr("a machine with 40.00 GiB available is needed"));
}

// Following the advice must work: what is advised is set, and nothing else is changed.
TEST(Placement, WhatSavesTooLittleIsNotAdvised) {
  PlacementInput in = small();
  in.max_num_seqs = 4;
  in.gpu_free_bytes = 12 * kGiB;  // one sequence takes 15
  EXPECT_THAT(refusal(in), Not(HasSubstr("--max-num-seqs")));
  EXPECT_THAT(refusal(in), Not(HasSubstr("--dense 8")));
  EXPECT_THAT(refusal(in), HasSubstr("a GPU with 18.00 GiB free is needed"));
  in.gpu_free_bytes = 17 * kGiB;
  EXPECT_THAT(refusal(in), HasSubstr("(all that is free): lower --max-num-seqs to 3"));
  in.max_num_seqs = 3;
  EXPECT_TRUE(plan_placement(in));
  in.max_num_seqs = 4;
  in.fixed_num_seqs = 1;
  EXPECT_THAT(refusal(in), HasSubstr("lower --max-num-seqs to 2"));
  in.fixed_num_seqs = 4;
  EXPECT_THAT(refusal(in), Not(HasSubstr("--max-num-seqs")));
}

TEST(Placement, TheOtherFormIsAdvisedWhereItIsEnough) {
  PlacementInput in = small();
  in.dense_8bit_on_request = DenseForm{.bits = 8, .stored_bytes = 4 * kGiB};
  in.gpu_free_bytes = 11 * kGiB;
  EXPECT_THAT(refusal(in), HasSubstr("(all that is free): give --dense 8"));
  in.gpu_free_bytes -= 1;
  EXPECT_THAT(refusal(in), Not(HasSubstr("lower --max-num-seqs")));
  EXPECT_THAT(refusal(in), HasSubstr("give --dense 8 and lower --max-model-len to 16320"));
}

TEST(Placement, WhatIsEnoughTogetherIsAdvisedTogether) {
  PlacementInput in = small();
  in.max_num_seqs = 4;
  in.dense_8bit_on_request = DenseForm{.bits = 8, .stored_bytes = 4 * kGiB};
  in.gpu_free_bytes = 12 * kGiB;
  EXPECT_THAT(refusal(in), HasSubstr("free): give --dense 8 and lower --max-num-seqs to 2"));
  EXPECT_THAT(refusal(in), Not(HasSubstr("is needed")));
  in.dense = *in.dense_8bit_on_request;
  in.max_num_seqs = 2;
  EXPECT_TRUE(plan_placement(in));
}

// 512 experts of one layer are fewer than what a prefill gets beside some of them.
TEST(Placement, AllExpertsNeedNoRoomForAPrefillBesideThem) {
  PlacementInput in = small();
  in.load.num_layers = 1;
  in.load.num_experts = 512;
  in.load.expert_bytes = 2 << 20;  // 1 GiB in all
  in.min_slots = 1;
  in.lending_slots = 3 * 512;
  in.staging_slots = 2 * 512;
  in.gpu_free_bytes = 14 * kGiB;
  auto plan = plan_placement(in);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->num_slots, 512);
  EXPECT_EQ(plan->gpu_bytes("prefill staging"), 0);
  in.gpu_free_bytes -= 1;
  EXPECT_THAT(refusal(in), HasSubstr("512 expert slots"));
  in.gpu_free_bytes = 14 * kGiB;
  in.max_slots = 100;  // needs room for a prefill
  EXPECT_THAT(refusal(in), HasSubstr("+ 1025 expert slots 2.00 GiB"));
  EXPECT_THAT(refusal(in), HasSubstr("leave out --max-expert-slots"));
}

// Nothing was measured, so no figure is what is free.
TEST(Placement, AnImaginedMachineIsDescribedByItsFlags) {
  PlacementInput in = small();
  in.is_imagined = true;
  in.gpu_free_bytes = 14 * kGiB;
  in.gpu_memory_bytes = in.gpu_free_bytes;
  EXPECT_THAT(refusal(in), HasSubstr("may be used (--gpu-memory): raise --gpu-memory to 15GiB"));
  in = small();
  in.is_imagined = true;
  in.gpu_memory_bytes = in.gpu_free_bytes;
  in.ram_available_bytes = 39 * kGiB;
  in.ram_bytes = in.ram_available_bytes;
  EXPECT_THAT(refusal(in), HasSubstr("may be used (--ram): raise --ram to 40GiB"));
}

TEST(Placement, TakesTheFormThatIsFaster) {
  PlacementInput in = small();
  in.dense_8bit = DenseForm{.bits = 8, .stored_bytes = 4 * kGiB, .read_bytes = 3 * kGiB};
  auto plan = plan_placement(in);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->dense.bits, 8);
  EXPECT_EQ(plan->num_slots, 11 * 32);
  EXPECT_GT(plan->expected_tok_s, plan->other_form_tok_s);
  EXPECT_GT(plan->other_form_tok_s, 0);

  // Where it saves nothing, the exact weights stay.
  in.dense_8bit = DenseForm{.bits = 8, .stored_bytes = 8 * kGiB, .read_bytes = 6 * kGiB};
  EXPECT_EQ(plan_placement(in)->dense.bits, 16);

  // Where only it fits, it is taken whatever the speed.
  in.dense_8bit = DenseForm{.bits = 8, .stored_bytes = 4 * kGiB, .read_bytes = 7 * kGiB};
  in.gpu_free_bytes = 12 * kGiB;
  plan = plan_placement(in);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->dense.bits, 8);
  EXPECT_EQ(plan->other_form_tok_s, 0);
}

TEST(Placement, AGainWithinTheRatesErrorKeepsTheExactWeights) {
  PlacementInput in = small();
  in.dense_8bit = in.dense;
  in.dense_8bit->bits = 8;
  in.dense_8bit->read_bytes = in.dense.read_bytes * 98 / 100;
  const auto plan = plan_placement(in);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->dense.bits, 16);
  EXPECT_GT(plan->other_form_tok_s, plan->expected_tok_s);
}

// The form counts in RAM, too: where only the smaller one fits, it is taken.
TEST(Placement, RamDecidesTheFormAsWell) {
  PlacementInput in = small();
  in.dense_8bit = DenseForm{
      .bits = 8, .stored_bytes = 8 * kGiB, .read_bytes = 6 * kGiB, .host_bytes = 2 * kGiB};
  in.ram_bytes = 38 * kGiB;
  const auto plan = plan_placement(in);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->dense.bits, 8);
  EXPECT_EQ(plan->ram_used_bytes, 38 * kGiB);
}

TEST(Placement, SequencesShareOneLongestContextInPages) {
  PlacementInput in = small();
  in.kv_page_tokens = 64;
  in.max_model_len = 16300;  // 255 pages
  in.max_num_seqs = 5;
  const auto plan = plan_placement(in);
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->gpu_bytes("KV"), (255 + 5) * 64 * in.kv_token_bytes);
  EXPECT_EQ(plan->gpu_bytes("states"), 5 * kGiB);
}

// Slots lend room to a prefill; where there are too few of them, it gets some of its own.
TEST(Placement, FewSlotsLeaveRoomForAPrefill) {
  PlacementInput in = small();
  in.lending_slots = 192;
  in.staging_slots = 128;
  auto plan = plan_placement(in);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->num_slots, 224) << "enough to lend";
  in.gpu_free_bytes = 18 * kGiB;  // 160 slots
  EXPECT_THAT(refusal(in), HasSubstr("192 expert slots"));
  in.min_slots = 1;
  plan = plan_placement(in);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->num_slots, 32);
  EXPECT_EQ(plan->gpu_bytes("prefill staging"), 4 * kGiB);
  EXPECT_EQ(plan->gpu_used_bytes, 18 * kGiB);
  in.max_slots = 16;
  plan = plan_placement(in);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->num_slots, 16);
  EXPECT_EQ(plan->gpu_bytes("prefill staging"), 4 * kGiB);
  in.gpu_free_bytes = 200 * kGiB;
  in.max_slots = 300;
  EXPECT_EQ(plan_placement(in)->num_slots, 300);
  in.max_slots.reset();
  EXPECT_EQ(plan_placement(in)->num_slots, 1024);
}

TEST(Placement, NoMoreSlotsThanExperts) {
  PlacementInput in = small();
  in.gpu_free_bytes = 200 * kGiB;
  const auto plan = plan_placement(in);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->num_slots, 1024);
  EXPECT_EQ(plan->expected_hit_rate, 1);
  EXPECT_EQ(plan->gpu_used_bytes, 45 * kGiB);
}

// Shares worked out apart from the code for the 80B model: 16.3 GB, 32K context, 1 GB of workspace.
TEST(Placement, OfQwen3NextAThirdToAQuarterFits) {
  struct Row {
    int32_t bits;
    double stored_gb, read_gb, share;
  };
  for (const Row& row :
       {Row{4, 1.33, 1.15, 0.32}, Row{8, 2.51, 2.18, 0.29}, Row{16, 4.73, 4.10, 0.24}}) {
    PlacementInput in = small();
    in.gpu_free_bytes = 16'300'000'000;
    in.dense = {.bits = row.bits,
                .stored_bytes = static_cast<int64_t>(row.stored_gb * 1e9),
                .read_bytes = static_cast<int64_t>(row.read_gb * 1e9)};
    in.kv_token_bytes = 24 << 10;
    in.max_model_len = 32768;
    in.state_bytes = 77'300'000;
    in.workspace_bytes = 1'000'000'000;
    in.graph_bytes = 0;
    in.gpu_margin_bytes = 0;
    in.load.num_layers = 48;
    in.load.num_experts = 512;
    in.load.top_k = 10;
    in.load.expert_bytes = 1'668'294;
    const auto plan = plan_placement(in);
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_NEAR(plan->cached_share, row.share, 0.006) << row.bits << " bits\n" << to_text(*plan);
  }
}

TEST(Placement, SizesThatOverflowAreRefused) {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  const auto refused = [](auto change) {
    PlacementInput in = small();
    change(in);
    return !plan_placement(in).has_value();
  };
  EXPECT_TRUE(refused([](auto& in) { in.max_model_len = kHuge; }));
  EXPECT_TRUE(refused([](auto& in) { in.kv_token_bytes = kHuge / 2; }));
  EXPECT_TRUE(refused([](auto& in) { in.max_num_seqs = kHuge; }));
  EXPECT_TRUE(refused([](auto& in) { in.workspace_bytes = kHuge; }));
  EXPECT_TRUE(refused([](auto& in) { in.load.expert_bytes = kHuge / 4; }));
  EXPECT_TRUE(refused([](auto& in) { in.host_bytes = kHuge; }));
  EXPECT_TRUE(refused([](auto& in) { in.workspace_bytes = -1; }));
  EXPECT_TRUE(refused([](auto& in) { in.gpu_free_bytes = -1; }));
  EXPECT_TRUE(refused([](auto& in) { in.gpu_memory_bytes = -5; }));
  EXPECT_TRUE(refused([](auto& in) { in.max_num_seqs = 0; }));
  EXPECT_TRUE(refused([](auto& in) { in.min_slots = 1025; }));
  EXPECT_TRUE(refused([](auto& in) { in.load.num_experts = 0; }));
  EXPECT_TRUE(refused([](auto& in) { in.kv_page_tokens = 0; }));
  EXPECT_TRUE(refused([](auto& in) { in.max_slots = -1; }));
  EXPECT_TRUE(refused([](auto& in) { in.bank_bytes = kHuge; }));
  EXPECT_FALSE(refused([](auto&) {}));
}

}  // namespace
}  // namespace hotset
