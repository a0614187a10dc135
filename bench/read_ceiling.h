// SPDX-License-Identifier: Apache-2.0
// What these threads reach when they only read memory: the ceiling that every memory-bound stage is
// held against, measured in the same run on the same cores.
#pragma once

#include "base/result.h"
#include "kernels/cpu/worker_pool.h"

namespace hotset::bench {

// Best of `rounds` passes over `bytes` of huge-page memory, each worker its own part; bytes/s.
Result<double> read_ceiling(cpu::WorkerPool& pool, int64_t bytes = int64_t{1} << 30,
                            int rounds = 5);

}  // namespace hotset::bench
