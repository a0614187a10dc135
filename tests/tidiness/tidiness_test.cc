// SPDX-License-Identifier: Apache-2.0
// The house rules that a machine can see: which room includes which, stray files, leftovers.
// The table below is docs/architecture.md's; a new arrow is a decision, made here.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace hotset {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>>& allowed_includes() {
  static const std::map<std::string, std::set<std::string>> table = {
      {"base", {}},
      {"request", {"base"}},
      {"telemetry", {"base"}},
      {"memory", {"base", "telemetry"}},
      {"quant", {"base"}},
      {"cuda", {"base"}},
      {"kernels", {"base", "quant", "cuda"}},
      {"checkpoint", {"base", "memory", "quant"}},
      {"tokenizer", {"base", "checkpoint"}},
      {"kvcache", {"base", "telemetry", "memory", "cuda"}},
      {"experts", {"base", "telemetry", "memory", "quant", "cuda", "kernels", "checkpoint"}},
      {"sampling", {"base", "request", "kernels"}},
      {"chat", {"base", "request", "tokenizer"}},
      {"scheduler", {"base", "request", "telemetry", "kvcache"}},
      {"model",
       {"base", "request", "telemetry", "memory", "quant", "cuda", "kernels", "checkpoint",
        "kvcache", "experts"}},
      {"engine",
       {"base", "request", "telemetry", "memory", "quant", "cuda", "kernels", "checkpoint",
        "kvcache", "experts", "sampling", "scheduler", "model"}},
      {"server", {"base", "request", "telemetry", "tokenizer", "chat", "engine"}},
  };
  return table;
}

struct SourceFile {
  fs::path path;
  std::string relative;
  std::vector<std::string> lines;
};

std::vector<SourceFile> read_sources(const std::string& folder) {
  std::vector<SourceFile> files;
  const fs::path root = fs::path(HOTSET_SOURCE_DIR);
  for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension != ".h" && extension != ".cc" && extension != ".cu" && extension != ".cuh")
      continue;
    SourceFile file{entry.path(), fs::relative(entry.path(), root).string(), {}};
    std::ifstream in(entry.path());
    for (std::string line; std::getline(in, line);) file.lines.push_back(line);
    files.push_back(std::move(file));
  }
  return files;
}

std::string included_path(const std::string& line) {
  if (line.rfind("#include \"", 0) != 0) return {};
  const size_t end = line.find('"', 10);
  return end == std::string::npos ? std::string() : line.substr(10, end - 10);
}

TEST(Tidiness, RoomsIncludeOnlyLowerFloors) {
  std::set<std::pair<std::string, std::string>> arrows;
  for (const SourceFile& file : read_sources("src")) {
    const std::string room = fs::path(file.relative).lexically_relative("src").begin()->string();
    ASSERT_TRUE(allowed_includes().count(room)) << file.relative << ": a room that no table knows";
    for (const std::string& line : file.lines) {
      const std::string path = included_path(line);
      if (path.empty()) continue;
      const std::string other = path.substr(0, path.find('/'));
      if (other == room) continue;
      EXPECT_TRUE(allowed_includes().at(room).count(other))
          << file.relative << " includes " << path;
      arrows.emplace(room, other);
    }
  }
  EXPECT_GE(arrows.size(), 8u) << "the include scan found next to nothing; is it broken?";
  for (const auto& [from, to] : arrows) {
    EXPECT_FALSE(arrows.count({to, from})) << from << " and " << to << " include each other";
  }
}

TEST(Tidiness, NoLooseFilesInTheRootOfSrc) {
  for (const auto& entry : fs::directory_iterator(fs::path(HOTSET_SOURCE_DIR) / "src")) {
    EXPECT_TRUE(entry.is_directory() || entry.path().filename() == "CMakeLists.txt")
        << entry.path();
  }
}

TEST(Tidiness, NoLeftovers) {
  // Spelled in halves, so that this file does not find itself.
  const std::vector<std::string> banned = {
      std::string("TO") + "DO", std::string("FIX") + "ME", std::string("std::re") + "gex",
      std::string("GTEST_") + "SKIP", std::string("DISA") + "BLED_"};
  for (const std::string folder : {"src", "apps", "tests", "bench"}) {
    for (const SourceFile& file : read_sources(folder)) {
      ASSERT_FALSE(file.lines.empty()) << file.relative;
      EXPECT_NE(file.lines[0].find("SPDX-License-Identifier: Apache-2.0"), std::string::npos)
          << file.relative << ": line 1 names no licence";
      for (size_t i = 0; i < file.lines.size(); ++i) {
        for (const std::string& word : banned) {
          EXPECT_EQ(file.lines[i].find(word), std::string::npos)
              << file.relative << ":" << i + 1 << ": " << word;
        }
        const bool below_apps = folder == "src";
        EXPECT_FALSE(below_apps && file.lines[i].find("getenv") != std::string::npos)
            << file.relative << ":" << i + 1 << ": the environment is read in apps/";
        EXPECT_FALSE(below_apps && file.lines[i].find("std::cout") != std::string::npos)
            << file.relative << ":" << i + 1 << ": printing is apps' work";
      }
    }
  }
}

TEST(Tidiness, BuildFilesNameTheirLicence) {
  const fs::path root = fs::path(HOTSET_SOURCE_DIR);
  std::vector<fs::path> build_files = {root / "CMakeLists.txt"};
  for (const std::string folder : {"src", "apps", "tests", "bench", "cmake"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const fs::path& path = entry.path();
      const bool is_one = path.filename() == "CMakeLists.txt" || path.extension() == ".cmake";
      if (entry.is_regular_file() && is_one) build_files.push_back(path);
    }
  }
  EXPECT_GE(build_files.size(), 20u) << "the scan found next to nothing; is it broken?";
  for (const fs::path& path : build_files) {
    std::ifstream in(path);
    std::string line;
    std::getline(in, line);
    EXPECT_EQ(line, "# SPDX-License-Identifier: Apache-2.0") << path << ": line 1";
  }
}

TEST(Tidiness, FilesStaySmallEnoughToRead) {
  for (const std::string folder : {"src", "apps"}) {
    for (const SourceFile& file : read_sources(folder)) {
      EXPECT_LE(file.lines.size(), 600u) << file.relative << ": which two nouns live here?";
    }
  }
}

}  // namespace
}  // namespace hotset
