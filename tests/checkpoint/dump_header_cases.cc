// SPDX-License-Identifier: Apache-2.0
// Writes the handmade files to a folder, for tools/checkpoint/make_verdicts.py:
//   dump_header_cases FOLDER
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "checkpoint/header_cases.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: dump_header_cases FOLDER\n", stderr);
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);
  for (const hotset::HeaderCase& one : hotset::header_cases()) {
    std::ofstream out(folder / (one.name + ".safetensors"), std::ios::binary);
    out.write(one.file.data(), static_cast<std::streamsize>(one.file.size()));
    if (!out.flush()) return 1;
  }
  return 0;
}
