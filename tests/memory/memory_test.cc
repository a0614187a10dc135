// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
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
  for (const char* text : {"max\n", "", "\n", "-1\n", "99999999999999999999", "none"}) {
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

TEST(MemoryInfo, ReadsThisMachine) {
  const auto info = read_memory_info();
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_GT(info->total_bytes, int64_t{1} << 26);
  EXPECT_LE(info->usable_bytes(), info->total_bytes);
}

}  // namespace
}  // namespace hotset
