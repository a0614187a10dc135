// SPDX-License-Identifier: Apache-2.0
// Routing traces and profiles: what is written is read back, and hostile files are refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "experts/routing_profile.h"
#include "experts/routing_trace.h"

namespace hotset {
namespace {

using ::testing::HasSubstr;

constexpr RoutingShape kShape = {.num_layers = 3, .num_experts = 300, .top_k = 2};

class RoutingFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("hotset_routing_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    path_ = (folder_ / "file").string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write_steps(const std::vector<std::vector<uint16_t>>& steps) {
    auto writer = RoutingTraceWriter::create(path_, kShape);
    EXPECT_TRUE(writer);
    for (const auto& step : steps) EXPECT_TRUE(writer->add_step(step));
    EXPECT_TRUE(writer->finish());
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static Result<RoutingTrace> parse(const std::string& bytes) {
    return RoutingTrace::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), "t.trace");
  }

  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(RoutingFile, ATraceComesBackAsItWasWritten) {
  const std::vector<std::vector<uint16_t>> steps = {
      {1, 2, 299, 0, 256, 255}, {5, 6, 7, 8, 9, 10}, {0, 299, 0, 299, 0, 299}};
  write_steps(steps);
  const auto trace = RoutingTrace::load(path_);
  ASSERT_TRUE(trace) << trace.error().message;
  ASSERT_EQ(trace->num_steps(), 3);
  for (int64_t step = 0; step < 3; ++step) {
    for (int32_t layer = 0; layer < 3; ++layer) {
      const auto ids = trace->ids(step, layer);
      ASSERT_EQ(ids.size(), 2u);
      EXPECT_EQ(ids[0], steps[static_cast<size_t>(step)][static_cast<size_t>(2 * layer)]);
      EXPECT_EQ(ids[1], steps[static_cast<size_t>(step)][static_cast<size_t>(2 * layer + 1)]);
    }
  }
  EXPECT_EQ(parse(write_steps({}))->num_steps(), 0);
}

TEST_F(RoutingFile, TheWriterRefusesWhatNoReaderWouldTake) {
  auto writer = RoutingTraceWriter::create(path_, kShape);
  ASSERT_TRUE(writer);
  EXPECT_FALSE(writer->add_step(std::vector<uint16_t>{1, 2, 3}));
  EXPECT_FALSE(writer->add_step(std::vector<uint16_t>{1, 2, 3, 4, 5, 300}));
  ASSERT_TRUE(writer->finish());
  EXPECT_FALSE(writer->finish());
  EXPECT_FALSE(RoutingTraceWriter::create(path_, {.num_layers = 0, .num_experts = 1, .top_k = 1}));
  EXPECT_FALSE(RoutingTraceWriter::create((folder_ / "no" / "where").string(), kShape));
}

TEST_F(RoutingFile, HostileTracesAreRefused) {
  const std::string good = write_steps({{1, 2, 3, 4, 5, 6}, {1, 2, 3, 4, 5, 6}});
  ASSERT_TRUE(parse(good));
  for (size_t length = 0; length < good.size(); ++length) {
    const bool whole_steps = length >= 24 && (length - 24) % 12 == 0;
    const auto trace = parse(good.substr(0, length));
    EXPECT_EQ(trace.has_value(), whole_steps) << length;
    if (!trace) {
      EXPECT_THAT(trace.error().message, HasSubstr("t.trace: ")) << length;
    }
  }
  const auto with_u32 = [&](size_t at, uint32_t value) {
    std::string bytes = good;
    for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<char>(value >> (8 * i));
    return bytes;
  };
  for (const uint32_t value : {0u, 0xffffffffu, 0x80000000u, 100000u}) {
    for (const size_t at : {8u, 12u, 16u}) EXPECT_FALSE(parse(with_u32(at, value))) << at;
  }
  EXPECT_FALSE(parse(with_u32(16, 257)));  // top_k
  EXPECT_THAT(parse(with_u32(20, 1)).error().message, HasSubstr("newer"));
  EXPECT_THAT(parse("x" + good.substr(1)).error().message, HasSubstr("not a routing trace"));
  std::string bad = good;
  bad[24 + 12 + 2 * 3] = '\x2c';  // 300, which is one too many
  bad[24 + 12 + 2 * 3 + 1] = '\x01';
  EXPECT_THAT(parse(bad).error().message, HasSubstr("step 1 layer 1: expert 300"));
  bad = good;
  bad[24 + 2] = '\x01';  // layer 0 chooses expert 1 twice
  EXPECT_THAT(parse(bad).error().message, HasSubstr("step 0 layer 0"));
  EXPECT_THAT(RoutingTrace::load((folder_ / "none").string()).error().message, HasSubstr("none"));
  EXPECT_FALSE(RoutingTrace::load(folder_.string()));
}

TEST_F(RoutingFile, AProfileCountsATraceAndComesBack) {
  write_steps({{1, 2, 3, 4, 5, 6}, {1, 7, 3, 4, 5, 6}});
  const RoutingTrace trace = *RoutingTrace::load(path_);
  const RoutingProfile profile = *RoutingProfile::from_trace(trace);
  EXPECT_EQ(profile.num_tokens(), 2);
  EXPECT_EQ(profile.count(0, 1), 2);
  EXPECT_EQ(profile.count(0, 2), 1);
  EXPECT_EQ(profile.count(0, 3), 0);
  EXPECT_EQ(profile.probability(0, 7), 0.5);
  ASSERT_TRUE(profile.save(path_));
  const auto back = RoutingProfile::load(path_);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->to_json(), profile.to_json());
  EXPECT_EQ(back->count(0, 1), 2);
  EXPECT_EQ(RoutingProfile::create(kShape)->probability(0, 0), 0) << "nothing recorded";
}

TEST_F(RoutingFile, ProfilesAddUp) {
  write_steps({{1, 2, 3, 4, 5, 6}, {1, 7, 3, 4, 5, 6}});
  const RoutingProfile once = *RoutingProfile::from_trace(*RoutingTrace::load(path_));
  RoutingProfile twice = once;
  ASSERT_TRUE(twice.merge(once));
  EXPECT_EQ(twice.num_tokens(), 4);
  EXPECT_EQ(twice.count(0, 1), 4);
  EXPECT_EQ(twice.count(0, 7), 2);
  EXPECT_TRUE(RoutingProfile::parse(twice.to_json(), "sum"));
  const std::string before = twice.to_json();
  const RoutingProfile other =
      *RoutingProfile::create({.num_layers = 3, .num_experts = 300, .top_k = 4});
  EXPECT_THAT(twice.merge(other).error().message, HasSubstr("300 experts, 4 a token"));
  RoutingProfile huge = *RoutingProfile::create(kShape);
  huge.add_tokens(int64_t{1} << 48);
  EXPECT_FALSE(twice.merge(huge)) << "more tokens than a file may hold";
  EXPECT_EQ(twice.to_json(), before) << "a refused profile changes nothing";
}

TEST_F(RoutingFile, AProfileIsWrittenWholeOrNotAtAll) {
  RoutingProfile profile = *RoutingProfile::create(kShape);
  ASSERT_TRUE(profile.save(path_));
  profile.add(0, std::vector<uint16_t>{1, 2});
  ASSERT_TRUE(profile.save(path_)) << "an older file is replaced";
  std::ifstream in(path_);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), profile.to_json());
  const std::filesystem::path link = folder_ / "link";
  std::filesystem::create_symlink(path_, link);
  std::filesystem::permissions(
      path_, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  profile.add(0, std::vector<uint16_t>{7, 8});
  ASSERT_TRUE(profile.save(link.string()));
  EXPECT_TRUE(std::filesystem::is_symlink(link)) << "what it leads to is replaced";
  std::ifstream linked(path_);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(linked), {}), profile.to_json());
  EXPECT_EQ(static_cast<int>(std::filesystem::status(path_).permissions()), 0600);
  std::filesystem::remove(link);
  const std::string missing = (folder_ / "no" / "where").string();
  EXPECT_THAT(profile.save(missing).error().message, HasSubstr("can't be created"));
  EXPECT_FALSE(profile.save(folder_.string())) << "a directory";
  EXPECT_THAT(profile.save("/dev/full").error().message, HasSubstr("can't be written"));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full")) << "a device is not replaced";
  size_t num_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_EQ(entry.path().string(), path_) << "a part was left behind";
    ++num_files;
  }
  EXPECT_EQ(num_files, 1u);
}

TEST_F(RoutingFile, HostileProfilesAreRefused) {
  const auto json = [](std::string counts, std::string tokens = "2", std::string top_k = "1") {
    return R"({"format":"hotset-routing-profile","version":1,"num_layers":2,"num_experts":2,"top_k":)" +
           top_k + R"(,"num_tokens":)" + tokens + R"(,"counts":)" + counts + "}";
  };
  const auto problem = [](const std::string& text) {
    const auto profile = RoutingProfile::parse(text, "p.json");
    return profile ? "accepted" : profile.error().message;
  };
  ASSERT_EQ(problem(json("[[1,1],[0,2]]")), "accepted");
  EXPECT_THAT(problem(json("[[1,1]]")), HasSubstr("p.json: counts must be a list of 2 layers"));
  EXPECT_THAT(problem(json("[[1,1],[2]]")), HasSubstr("counts[1] must be a list of 2"));
  EXPECT_THAT(problem(json("[[1,1],[0,3]]")), HasSubstr("counts[1]: a count"));
  EXPECT_THAT(problem(json("[[1,1],[0,1]]")), HasSubstr("add up to 1"));
  EXPECT_THAT(problem(json("[[1,1],[-1,3]]")), HasSubstr("counts[1]"));
  EXPECT_THAT(problem(json("[[1,1],[0.5,1.5]]")), HasSubstr("counts[1]"));
  EXPECT_THAT(problem(json("[[1,1],\"x\"]")), HasSubstr("counts[1]"));
  EXPECT_THAT(problem(json("7")), HasSubstr("counts"));
  EXPECT_THAT(problem(json("[[1,1],[0,2]]", "1e30")), HasSubstr("num_tokens"));
  EXPECT_THAT(problem(json("[[1,1],[0,2]]", "18446744073709551615")), HasSubstr("num_tokens"));
  EXPECT_THAT(problem(json("[[1,1],[0,2]]", "2", "3")), HasSubstr("out of range"));
  EXPECT_THAT(problem("{}"), HasSubstr("format"));
  EXPECT_THAT(problem("[]"), HasSubstr("p.json"));
  EXPECT_THAT(problem(""), HasSubstr("p.json"));
}

}  // namespace
}  // namespace hotset
