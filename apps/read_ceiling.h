// SPDX-License-Identifier: Apache-2.0
// What these threads reach when they only read memory: the ceiling that every memory-bound stage is
// held against, measured in the same run on the same cores.
#pragma once

#include "base/result.h"
#include "kernels/cpu/worker_pool.h"

namespace hotset::bench {

// Bytes/s over `bytes` of huge-page memory in pieces of 32 MiB that take turns, so that none is in
// a cache when it comes again; each worker reads its own part. The best piece of `rounds` passes
// counts.
Result<double> read_ceiling(cpu::WorkerPool& pool, int64_t bytes = int64_t{1} << 30,
                            int rounds = 5);

}  // namespace hotset::bench
