// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "memory/huge_buffer.h"
#include "memory/memory_info.h"

namespace hotset {
namespace {

TEST(HugeBuffer, IsAlignedZeroedAndWritable) {
  for (const int64_t bytes : {int64_t{1}, kHugePageBytes - 1, kHugePageBytes, kHugePageBytes + 1,
                              3 * kHugePageBytes + 12345}) {
    auto buffer = HugeBuffer::allocate(bytes);
    ASSERT_TRUE(buffer) << buffer.error().message;
    EXPECT_EQ(buffer->size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % kHugePageBytes, 0u);
    const auto span = buffer->span();
    EXPECT_TRUE(
        std::all_of(span.begin(), span.end(), [](std::byte b) { return b == std::byte{}; }));
    std::fill(span.begin(), span.end(), std::byte{1});
  }
}

TEST(HugeBuffer, EmptyMovedAndImpossible) {
  auto empty = HugeBuffer::allocate(0);
  ASSERT_TRUE(empty);
  EXPECT_EQ(empty->size(), 0);
  EXPECT_TRUE(empty->span().empty());

  auto a = HugeBuffer::allocate(100).value();
  a.span()[99] = std::byte{7};
  HugeBuffer b = std::move(a);
  EXPECT_EQ(b.span()[99], std::byte{7});
  HugeBuffer c;
  c = std::move(b);
  EXPECT_EQ(c.size(), 100);
  EXPECT_EQ(c.span()[99], std::byte{7});

  for (const int64_t bytes :
       {int64_t{-1}, INT64_MIN, INT64_MAX, INT64_MAX - 2 * kHugePageBytes, int64_t{1} << 62}) {
    const auto refused = HugeBuffer::allocate(bytes);
    ASSERT_FALSE(refused) << bytes;
    EXPECT_EQ(refused.error().kind, ErrorKind::kResource);
    EXPECT_NE(refused.error().message.find(std::to_string(bytes)), std::string::npos)
        << refused.error().message;
    EXPECT_NE(refused.error().message.find("available"), std::string::npos);
  }
}

TEST(MemoryInfo, MeminfoLines) {
  constexpr std::string_view kText =
      "MemTotal:       24576000 kB\nMemFree:         1000 kB\nMemAvailable:   123 kB\n"
      "HugePages_Total:       5\nBroken:  kB\nNegative: -5 kB\nHuge: 99999999999999999999 kB\n"
      "Wide: 9223372036854775807 kB\nLast: 7 kB";
  EXPECT_EQ(parse_meminfo_line(kText, "MemAvailable"), 125952);
  EXPECT_EQ(parse_meminfo_line(kText, "MemTotal"), int64_t{24576000} * 1024);
  EXPECT_EQ(parse_meminfo_line(kText, "HugePages_Total"), 5);
  EXPECT_EQ(parse_meminfo_line(kText, "Last"), 7168);
  for (const char* key : {"Mem", "memtotal", "Absent", "Broken", "Negative", "Huge", "Wide", ""}) {
    EXPECT_EQ(parse_meminfo_line(kText, key), std::nullopt) << key;
  }
  EXPECT_EQ(parse_meminfo_line("", "MemTotal"), std::nullopt);
}

TEST(MemoryInfo, CgroupLimits) {
  EXPECT_EQ(parse_cgroup_limit("1073741824\n"), int64_t{1} << 30);
  EXPECT_EQ(parse_cgroup_limit("0\n"), 0);
  for (const char* text :
       {"max\n", "", "\n", "-1\n", "9223372036854771712\n", "99999999999999999999", "none"}) {
    EXPECT_EQ(parse_cgroup_limit(text), std::nullopt) << text;
  }
}

TEST(MemoryInfo, UsableIsTheLesser) {
  MemoryInfo info;
  info.total_bytes = 1000;
  info.available_bytes = 500;
  EXPECT_EQ(info.usable_bytes(), 500);
  info.cgroup_limit_bytes = 400;
  info.cgroup_used_bytes = 100;
  EXPECT_EQ(info.usable_bytes(), 300);
  info.cgroup_used_bytes = 450;  // a group may be over its limit for a moment
  EXPECT_EQ(info.usable_bytes(), 0);
  info.cgroup_limit_bytes = 100000;
  EXPECT_EQ(info.usable_bytes(), 500);
}

// A made-up /proc and /sys/fs/cgroup.
class MemoryGroups : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() / "hotset_memory_groups";
    std::filesystem::remove_all(root_);
    write("meminfo", "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  [[nodiscard]] int64_t usable() const {
    const std::string root = root_.string();
    const auto info = read_memory_info(
        {.meminfo = root + "/meminfo", .membership = root + "/cgroup", .groups = root + "/groups"});
    return info ? info->usable_bytes() : -1;
  }
  std::filesystem::path root_;
};

TEST_F(MemoryGroups, Version2TakesTheTightestGroup) {
  EXPECT_EQ(usable(), int64_t{60000000} * 1024) << "no groups at all";
  write("cgroup", "0::/a/b\n");
  write("groups/a/b/memory.max", "max\n");
  write("groups/a/memory.max", "20000000000\n");
  write("groups/a/memory.current", "6000000000\n");
  write("groups/a/memory.stat", "anon 1\ninactive_file 1000000000\n");
  EXPECT_EQ(usable(), int64_t{15} * 1000 * 1000 * 1000);
  // A smaller limit that less of is used.
  write("groups/a/b/memory.max", "18000000000\n");
  EXPECT_EQ(usable(), int64_t{15} * 1000 * 1000 * 1000);
  write("groups/a/b/memory.max", "9000000000\n");
  EXPECT_EQ(usable(), int64_t{9} * 1000 * 1000 * 1000);
}

TEST_F(MemoryGroups, Version1BesideVersion2) {
  write("cgroup", "12:cpu,cpuacct:/x\n5:memory:/docker/1234\n0::/\n");
  write("groups/memory/docker/1234/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(usable(), int64_t{60000000} * 1024) << "what version 1 writes for no limit";
  write("groups/memory/docker/1234/memory.limit_in_bytes", "20000000000\n");
  write("groups/memory/docker/1234/memory.usage_in_bytes", "7000000000\n");
  write("groups/memory/docker/1234/memory.stat",
        "inactive_file 5\ntotal_inactive_file 2000000000\n");
  EXPECT_EQ(usable(), int64_t{15} * 1000 * 1000 * 1000);
}

// A container is told its path on the host, and sees its own group as the root.
TEST_F(MemoryGroups, APathThatIsNotThereFallsBackToTheRoot) {
  write("cgroup", "0::/system.slice/docker-1234.scope\n");
  write("groups/memory.max", "3000000000\n");
  EXPECT_EQ(usable(), int64_t{3} * 1000 * 1000 * 1000);
  write("cgroup", "nonsense\n:\n");
  EXPECT_EQ(usable(), int64_t{60000000} * 1024);
}

TEST(MemoryInfo, ReadsThisMachine) {
  const auto info = read_memory_info();
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_GT(info->total_bytes, int64_t{1} << 26);
  EXPECT_LE(info->usable_bytes(), info->total_bytes);
}

}  // namespace
}  // namespace hotset
