// SPDX-License-Identifier: Apache-2.0
// What these threads reach when they read a checkpoint's files and do nothing else: the ceiling
// that loading is held against, measured in the same run.
#pragma once

#include <string>

#include "base/result.h"

namespace hotset::bench {

// Bytes/s of pread into fresh huge-page memory, as a loader has to, in pieces of 8 MiB. Read once
// before, the files come from the page cache, as they do for a load in the same run.
Result<double> file_read_rate(const std::string& directory, int num_threads);

}  // namespace hotset::bench
