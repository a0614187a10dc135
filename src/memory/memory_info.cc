// SPDX-License-Identifier: Apache-2.0
// /proc/meminfo and the cgroup v2 files of this process and all groups above it.
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

// The tightest group between ours and the root decides.
void read_cgroup(MemoryInfo& info) {
  const auto membership = slurp("/proc/self/cgroup");
  if (!membership) return;
  const size_t at = membership->find("0::");
  if (at == std::string::npos) return;
  std::string group = membership->substr(at + 3, membership->find('\n', at) - at - 3);
  while (true) {
    const std::string base = "/sys/fs/cgroup" + group;
    const auto text = slurp(base + "/memory.max");
    const auto limit = text ? parse_cgroup_limit(*text) : std::nullopt;
    if (limit && (!info.cgroup_limit_bytes || *limit < *info.cgroup_limit_bytes)) {
      info.cgroup_limit_bytes = limit;
      const int64_t used = leading_number(slurp(base + "/memory.current").value_or("")).value_or(0);
      const int64_t cache = stat_value(slurp(base + "/memory.stat").value_or(""), "inactive_file");
      info.cgroup_used_bytes = std::max<int64_t>(0, used - cache);
    }
    if (group.empty() || group == "/") return;
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
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
  if (!value || *value < 0) return std::nullopt;
  return value;
}

Result<MemoryInfo> read_memory_info() {
  const auto text = slurp("/proc/meminfo");
  if (!text) return fail("/proc/meminfo cannot be read", ErrorKind::kInternal);
  const auto total = parse_meminfo_line(*text, "MemTotal");
  const auto available = parse_meminfo_line(*text, "MemAvailable");
  if (!total || !available) {
    return fail("/proc/meminfo has no MemTotal or MemAvailable", ErrorKind::kInternal);
  }
  MemoryInfo info;
  info.total_bytes = *total;
  info.available_bytes = *available;
  read_cgroup(info);
  return info;
}

}  // namespace hotset
