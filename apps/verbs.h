// SPDX-License-Identifier: Apache-2.0
// The verbs. Each returns the exit code: 0 fine, 1 something failed at run time, 2 bad input, 3 the
// GPU is lost to this process (start it again), 130 ended by Ctrl-C.
#pragma once

#include "options.h"

namespace hotset {

inline constexpr int kExitFine = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitBadInput = 2;
inline constexpr int kExitDeviceLost = 3;
inline constexpr int kExitInterrupted = 130;

int run_complete(const CompleteOptions& options);
int run_chat(const ChatOptions& options);
int run_inspect(const InspectOptions& options);
int run_profile(const ProfileOptions& options);
int run_plan(const PlanOptions& options);
int run_serve(const ServeOptions& options);
int run_bench(const BenchOptions& options);
int run_version();

}  // namespace hotset
