// SPDX-License-Identifier: Apache-2.0
// The k-th system call of a whole load fails, for every k: an error that names the file, or, for
// what is worth another try (EINTR, a short read), success. Never a crash, never a hang.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "checkpoint/model_folder.h"

namespace hotset {
namespace {

enum class Fault { kIoError, kInterrupted, kShortRead, kEndOfFile, kNoMemory };

// Counts calls; the one numbered `at` has the fault. -1: none.
struct Injected {
  int at = -1;
  Fault fault = Fault::kIoError;
  int count = 0;

  bool hit() { return count++ == at; }
  int error() const {
    return fault == Fault::kInterrupted ? EINTR : fault == Fault::kNoMemory ? ENOMEM : EIO;
  }
  std::shared_ptr<const FileCalls> calls() {
    auto out = std::make_shared<FileCalls>();
    out->openat = [this](int dir, const char* name, int flags) {
      return hit() ? (errno = error(), -1) : ::openat(dir, name, flags);
    };
    out->fstatat = [this](int dir, const char* name, struct stat* to) {
      return hit() ? (errno = error(), -1) : ::fstatat(dir, name, to, 0);
    };
    out->fstat = [this](int fd, struct stat* to) {
      return hit() ? (errno = error(), -1) : ::fstat(fd, to);
    };
    out->pread = [this](int fd, void* to, size_t bytes, off_t offset) -> ssize_t {
      if (!hit()) return ::pread(fd, to, bytes, offset);
      if (fault == Fault::kEndOfFile) return 0;
      if (fault == Fault::kShortRead) return ::pread(fd, to, (bytes + 1) / 2, offset);
      errno = error();
      return -1;
    };
    return out;
  }
};

size_t open_files() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    count += 1;
  }
  return count;
}

TEST(Faults, EveryCallOfALoad) {
  const std::string dir = "golden/models/random-c";
  Injected none;
  ASSERT_TRUE(load_everything(dir, none.calls()));
  const int calls = none.count;
  EXPECT_GE(calls, 100);
  const size_t files_before = open_files();
  int runs = 0, errors = 0;
  for (const Fault fault : {Fault::kIoError, Fault::kInterrupted, Fault::kShortRead,
                            Fault::kEndOfFile, Fault::kNoMemory}) {
    for (int k = 0; k < calls; ++k, ++runs) {
      Injected injected{.at = k, .fault = fault};
      const Status status = load_everything(dir, injected.calls());
      if (status) {
        EXPECT_TRUE(fault == Fault::kInterrupted || fault == Fault::kShortRead) << "call " << k;
        continue;
      }
      errors += 1;
      EXPECT_NE(fault, Fault::kInterrupted) << status.error().message;
      EXPECT_NE(status.error().message.find(dir), std::string::npos) << status.error().message;
    }
  }
  EXPECT_GE(runs, 600);
  EXPECT_GE(errors, 3 * calls / 2);
  EXPECT_EQ(open_files(), files_before) << "a failed load leaves files open";
}

}  // namespace
}  // namespace hotset
