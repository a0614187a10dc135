// SPDX-License-Identifier: Apache-2.0
// What this machine gives, measured at start in a fraction of a second, for the memory plan and the
// speed it promises (experts/speed_model.h).
//
//   device memory    read by a kernel that does nothing else
//   PCIe             copies out of pinned memory: alone, and while all threads of the pool read RAM
//   RAM              read by the pool's threads: alone, and while the copies run
//
// What cannot be measured before there is a model stands for its kind: a CPU's expert products
// reach a known share of what the same threads read; a kernel of a decode step takes a few
// microseconds whatever it reads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "cuda/runtime.h"
#include "experts/speed_model.h"
#include "kernels/cpu/worker_pool.h"

namespace hotset {

// A desktop: 16 cores, two channels of DDR5, a card with 16 GB on PCIe 4 x16.
[[nodiscard]] MachineRates typical_rates();

// Takes up to 512 MiB of device memory, `ram_bytes` of RAM and 64 MiB pinned, and gives all back. A
// part that cannot be measured keeps its typical rate, and is told in `notes`; fails only when the
// device is lost.
Result<MachineRates> calibrate(cuda::Runtime& runtime, cpu::WorkerPool& pool,
                               std::vector<std::string>* notes,
                               int64_t ram_bytes = int64_t{512} << 20);

}  // namespace hotset
