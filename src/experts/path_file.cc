// SPDX-License-Identifier: Apache-2.0
#include "experts/path_file.h"

#include "memory/file.h"

namespace hotset {

Result<std::string> read_path(const std::string& path, int64_t max_bytes) {
  const size_t slash = path.rfind('/');
  const bool has_folder = slash != std::string::npos;
  const std::string folder = !has_folder ? "." : slash == 0 ? "/" : path.substr(0, slash);
  HS_ASSIGN_OR_RETURN(const Directory directory, Directory::open(folder));
  return read_small_file(directory, has_folder ? path.substr(slash + 1) : path, max_bytes);
}

}  // namespace hotset
