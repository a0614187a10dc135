// SPDX-License-Identifier: Apache-2.0
// /proc/meminfo and the control groups of this process and all above them.
#include "memory/memory_info.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace hotset {
namespace {

std::optional<std::string> slurp(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::optional<int64_t> leading_number(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end == text.data()) return std::nullopt;
  return value;
}

// "inactive_file 123\n…" as memory.stat has it.
int64_t stat_value(std::string_view stat, std::string_view key) {
  size_t at = 0;
  while (at < stat.size()) {
    const size_t end = std::min(stat.find('\n', at), stat.size());
    const std::string_view line = stat.substr(at, end - at);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') {
      return leading_number(line.substr(key.size())).value_or(0);
    }
    at = end + 1;
  }
  return 0;
}

// What the two versions of control groups call the same things.
struct GroupNames {
  const char* limit;
  const char* used;
  const char* cache;  // of memory.stat
};
constexpr GroupNames kVersion1{"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                               "total_inactive_file"};
constexpr GroupNames kVersion2{"/memory.max", "/memory.current", "inactive_file"};

// The tightest group between ours and the root decides. A container sees the groups from its own
// on, under another path than the one it is told: what is missing is passed over.
void read_groups(const std::string& root, std::string group, const GroupNames& names,
                 MemoryInfo& info) {
  while (true) {
    const std::string base = root + group;
    const auto text = slurp(base + names.limit);
    const auto limit = text ? parse_cgroup_limit(*text) : std::nullopt;
    if (limit) {
      const int64_t used = leading_number(slurp(base + names.used).value_or("")).value_or(0);
      const int64_t cache = stat_value(slurp(base + "/memory.stat").value_or(""), names.cache);
      const int64_t held = std::max<int64_t>(0, used - cache);
      if (!info.cgroup_limit_bytes ||
          *limit - held < *info.cgroup_limit_bytes - info.cgroup_used_bytes) {
        info.cgroup_limit_bytes = limit;
        info.cgroup_used_bytes = held;
      }
    }
    if (group.empty() || group == "/") return;
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

// Lines of "5:memory:/path" (version 1; controllers in a list) and "0::/path" (version 2).
void read_cgroups(const MemoryFiles& files, MemoryInfo& info) {
  const auto membership = slurp(files.membership);
  if (!membership) return;
  std::istringstream lines(*membership);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") read_groups(files.groups, group, kVersion2, info);
    if (controllers.find(",memory,") != std::string::npos) {
      read_groups(files.groups + "/memory", group, kVersion1, info);
    }
  }
}

}  // namespace

int64_t MemoryInfo::usable_bytes() const {
  if (!cgroup_limit_bytes) return available_bytes;
  return std::clamp<int64_t>(*cgroup_limit_bytes - cgroup_used_bytes, 0, available_bytes);
}

std::optional<int64_t> parse_meminfo_line(std::string_view meminfo, std::string_view key) {
  size_t at = 0;
  while (at < meminfo.size()) {
    const size_t end = std::min(meminfo.find('\n', at), meminfo.size());
    const std::string_view line = meminfo.substr(at, end - at);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ':') {
      const auto value = leading_number(line.substr(key.size() + 1));
      if (!value || *value < 0 || *value > INT64_MAX / 1024) return std::nullopt;
      return line.ends_with(" kB") ? *value * 1024 : *value;
    }
    at = end + 1;
  }
  return std::nullopt;
}

std::optional<int64_t> parse_cgroup_limit(std::string_view text) {
  const auto value = leading_number(text);
  constexpr int64_t kNone = int64_t{1} << 62;  // version 1 writes the largest page count
  if (!value || *value < 0 || *value >= kNone) return std::nullopt;
  return value;
}

std::optional<int64_t> bytes_on_huge_pages() {
  const auto text = slurp("/proc/self/smaps_rollup");
  return text ? parse_meminfo_line(*text, "AnonHugePages") : std::nullopt;
}

Result<MemoryInfo> read_memory_info(const MemoryFiles& files) {
  const auto text = slurp(files.meminfo);
  if (!text) return fail(files.meminfo + " cannot be read", ErrorKind::kInternal);
  const auto total = parse_meminfo_line(*text, "MemTotal");
  const auto available = parse_meminfo_line(*text, "MemAvailable");
  if (!total || !available) {
    return fail("/proc/meminfo has no MemTotal or MemAvailable", ErrorKind::kInternal);
  }
  MemoryInfo info;
  info.total_bytes = *total;
  info.available_bytes = *available;
  read_cgroups(files, info);
  return info;
}

}  // namespace hotset
