// SPDX-License-Identifier: Apache-2.0
// How much RAM a load may use: the kernel's MemAvailable and the limits of our control groups (v1
// and v2), whichever is less. Read once at start; the text parsers are apart so that tests can feed
// them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace hotset {

struct MemoryInfo {
  int64_t total_bytes = 0;                    // MemTotal
  int64_t available_bytes = 0;                // MemAvailable
  std::optional<int64_t> cgroup_limit_bytes;  // absent: no limit
  int64_t cgroup_used_bytes = 0;              // without reclaimable page cache

  // What can still be taken.
  [[nodiscard]] int64_t usable_bytes() const;
};

// Where the kernel tells; another place in tests.
struct MemoryFiles {
  std::string meminfo = "/proc/meminfo";
  std::string membership = "/proc/self/cgroup";
  std::string groups = "/sys/fs/cgroup";
};
[[nodiscard]] Result<MemoryInfo> read_memory_info(const MemoryFiles& files = {});

// How much of this process lies on transparent huge pages; absent where the kernel does not say.
[[nodiscard]] std::optional<int64_t> bytes_on_huge_pages();

// "MemAvailable:   123 kB" → 125952.
[[nodiscard]] std::optional<int64_t> parse_meminfo_line(std::string_view meminfo,
                                                        std::string_view key);
// memory.max and the like: "max" or a number.
[[nodiscard]] std::optional<int64_t> parse_cgroup_limit(std::string_view text);

}  // namespace hotset
