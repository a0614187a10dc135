// SPDX-License-Identifier: Apache-2.0
// Read-only files beneath one directory, read by position.
//
// What may be opened: a plain file name (no '/', no "..") that is a regular file. A symbolic link
// is followed only to a regular file beneath the same directory, or to one in the `blobs` folder of
// a Hugging Face cache entry (models--ORG--NAME/blobs), because snapshots are made of such links.
// FIFOs, devices, sockets and directories are refused before they are opened.
// Reads retry EINTR and short reads, and say so when the file ends early.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

// The system calls of this room; tests replace them to fail the k-th one.
struct FileCalls {
  std::function<int(int dir, const char* name, int flags)> openat;
  std::function<int(int dir, const char* name, struct stat* out)> fstatat;
  std::function<int(int fd, struct stat* out)> fstat;
  std::function<ssize_t(int fd, void* to, size_t bytes, off_t offset)> pread;
};
[[nodiscard]] std::shared_ptr<const FileCalls> system_file_calls();

// Move-only. read_at is safe from several threads at once.
class File {
 public:
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  [[nodiscard]] const std::string& path() const { return path_; }  // for messages
  [[nodiscard]] int64_t size() const { return size_; }             // when it was opened
  // Fills the whole span, or fails naming the file and the offset.
  [[nodiscard]] Status read_at(int64_t offset, std::span<std::byte> to) const;
  // Hints for the page cache; they never fail.
  void advise_sequential() const;
  void advise_drop(int64_t offset, int64_t bytes) const;

 private:
  friend class Directory;
  File(int fd, std::string path, int64_t size, std::shared_ptr<const FileCalls> calls);

  int fd_ = -1;
  std::string path_;
  int64_t size_ = 0;
  std::shared_ptr<const FileCalls> calls_;
};

class Directory {
 public:
  [[nodiscard]] static Result<Directory> open(
      const std::string& path, std::shared_ptr<const FileCalls> calls = system_file_calls());

  Directory(Directory&& other) noexcept;
  Directory& operator=(Directory&& other) noexcept;
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory();

  [[nodiscard]] const std::string& path() const { return path_; }
  // kNotFound when there is no such file; other kinds when it may not be opened.
  [[nodiscard]] Result<File> open_file(std::string_view name) const;
  [[nodiscard]] bool contains(std::string_view name) const;      // something of that name exists
  [[nodiscard]] Result<std::vector<std::string>> names() const;  // sorted, without "." and ".."

 private:
  Directory(int fd, std::string path, std::shared_ptr<const FileCalls> calls);
  [[nodiscard]] Status check_link_target(const std::string& name) const;

  int fd_ = -1;
  std::string path_;
  std::shared_ptr<const FileCalls> calls_;
};

// True for a name that cannot leave its directory: not empty, not "." or "..", no '/', '\\' or NUL.
[[nodiscard]] bool is_plain_file_name(std::string_view name);

// Whole small file as bytes; refuses files above `max_bytes` by size before reading.
[[nodiscard]] Result<std::string> read_small_file(const Directory& dir, std::string_view name,
                                                  int64_t max_bytes);

}  // namespace hotset
