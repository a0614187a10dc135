// SPDX-License-Identifier: Apache-2.0
// Opening is three steps: look (fstatat), judge a link by where it leads, open and look again, so
// that a FIFO is never opened and a file swapped in between is noticed.
#include "memory/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace hotset {
namespace {

// Linux moves at most 2 GiB - 4 KiB per call; asking for less keeps cancellation points frequent.
constexpr size_t kMaxReadBytes = size_t{1} << 30;
constexpr int kMaxOpenRetries = 16;

ErrorKind kind_of(int error) {
  if (error == ENOENT || error == ENOTDIR) return ErrorKind::kNotFound;
  if (error == EMFILE || error == ENFILE || error == ENOMEM) return ErrorKind::kResource;
  if (error == EACCES || error == EPERM || error == ELOOP) return ErrorKind::kInvalidInput;
  return ErrorKind::kInternal;
}

tl::unexpected<Error> system_error(const std::string& path, std::string_view what, int error) {
  return fail(fmt::format("{}: {}: {}", path, what, std::strerror(error)), kind_of(error));
}

template <typename Call>
int retry_interrupted(const Call& call) {
  for (int attempt = 0;; ++attempt) {
    const int result = call();
    if (result >= 0 || errno != EINTR || attempt == kMaxOpenRetries) return result;
  }
}

const char* file_type_name(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  if (S_ISSOCK(mode)) return "a socket";
  return "not a regular file";
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

std::string_view last_component(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::string real_path(const std::string& path) {
  char* resolved = ::realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return {};
  std::string out(resolved);
  std::free(resolved);
  return out;
}

}  // namespace

std::shared_ptr<const FileCalls> system_file_calls() {
  auto calls = std::make_shared<FileCalls>();
  calls->openat = [](int dir, const char* name, int flags) { return ::openat(dir, name, flags); };
  calls->fstatat = [](int dir, const char* name, struct stat* out) {
    return ::fstatat(dir, name, out, 0);
  };
  calls->fstat = [](int fd, struct stat* out) { return ::fstat(fd, out); };
  calls->pread = [](int fd, void* to, size_t bytes, off_t offset) {
    return ::pread(fd, to, bytes, offset);
  };
  return calls;
}

bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > NAME_MAX) return false;
  return name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

File::File(int fd, std::string path, int64_t size, std::shared_ptr<const FileCalls> calls)
    : fd_(fd), path_(std::move(path)), size_(size), calls_(std::move(calls)) {}

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      size_(other.size_),
      calls_(std::move(other.calls_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(size_, other.size_);
  std::swap(calls_, other.calls_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

Status File::read_at(int64_t offset, std::span<std::byte> to) const {
  if (offset < 0 || offset > INT64_MAX - static_cast<int64_t>(to.size())) {
    return fail(fmt::format("{}: no offset {}", path_, offset));
  }
  size_t done = 0;
  while (done < to.size()) {
    const size_t ask = std::min(to.size() - done, kMaxReadBytes);
    const int64_t at = offset + static_cast<int64_t>(done);
    const ssize_t got = calls_->pread(fd_, to.data() + done, ask, at);
    if (got < 0) {
      if (errno == EINTR) continue;
      return system_error(path_, fmt::format("reading {} bytes at offset {}", ask, at), errno);
    }
    if (got == 0) {
      return fail(
          fmt::format("{}: the file ends at offset {}, {} bytes earlier than expected; it "
                      "was cut or replaced: fetch it again",
                      path_, at, to.size() - done));
    }
    done += static_cast<size_t>(got);
  }
  return {};
}

void File::advise_sequential() const {
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

void File::advise_drop(int64_t offset, int64_t bytes) const {
  ::posix_fadvise(fd_, offset, bytes, POSIX_FADV_DONTNEED);
}

Directory::Directory(int fd, std::string path, std::shared_ptr<const FileCalls> calls)
    : fd_(fd), path_(std::move(path)), calls_(std::move(calls)) {}

Directory::Directory(Directory&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      calls_(std::move(other.calls_)) {}

Directory& Directory::operator=(Directory&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(calls_, other.calls_);
  return *this;
}

Directory::~Directory() {
  if (fd_ >= 0) ::close(fd_);
}

Result<Directory> Directory::open(const std::string& path, std::shared_ptr<const FileCalls> calls) {
  const int fd = retry_interrupted(
      [&] { return calls->openat(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (fd < 0) return system_error(path, "cannot open the directory", errno);
  return Directory(fd, path, std::move(calls));
}

Status Directory::check_link_target(const std::string& name) const {
  const std::string here = real_path(path_);
  const std::string target = real_path(path_ + "/" + name);
  if (here.empty() || target.empty()) {
    return fail(fmt::format("{}/{}: the link leads nowhere", path_, name), ErrorKind::kNotFound);
  }
  if (target.starts_with(here + "/")) return {};
  const std::string folder = parent_of(target);
  const std::string entry = parent_of(folder);
  if (last_component(folder) == "blobs" && last_component(entry).starts_with("models--")) return {};
  return fail(
      fmt::format("{}/{} is a link to {}, outside of the model directory; put the file "
                  "itself there, or name the directory it lies in",
                  path_, name, target));
}

Result<File> Directory::open_file(std::string_view name) const {
  if (!is_plain_file_name(name)) {
    return fail(fmt::format("{}: '{}' is not a plain file name", path_, name));
  }
  const std::string file_name(name);
  std::string path = path_ + "/" + file_name;
  struct stat info {};
  if (retry_interrupted([&] { return calls_->fstatat(fd_, file_name.c_str(), &info); }) != 0) {
    return system_error(path, "cannot open", errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return fail(
        fmt::format("{} is {}, a regular file is needed", path, file_type_name(info.st_mode)));
  }
  struct stat link {};
  if (::fstatat(fd_, file_name.c_str(), &link, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(link.st_mode)) {
    HS_RETURN_IF_ERROR(check_link_target(file_name));
  }
  // O_NONBLOCK: were a FIFO put there in between, open would otherwise wait for a writer.
  const int fd = retry_interrupted([&] {
    return calls_->openat(fd_, file_name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  });
  if (fd < 0) return system_error(path, "cannot open", errno);
  File file(fd, std::move(path), 0, calls_);
  struct stat opened {};
  if (retry_interrupted([&] { return calls_->fstat(fd, &opened); }) != 0) {
    return system_error(file.path_, "cannot read the file's size", errno);
  }
  if (!S_ISREG(opened.st_mode) || opened.st_ino != info.st_ino || opened.st_dev != info.st_dev) {
    return fail(fmt::format("{} changed while it was opened", file.path_));
  }
  file.size_ = opened.st_size;
  return file;
}

bool Directory::contains(std::string_view name) const {
  struct stat info {};
  const std::string file_name(name);
  return is_plain_file_name(name) && ::fstatat(fd_, file_name.c_str(), &info, 0) == 0;
}

Result<std::vector<std::string>> Directory::names() const {
  const int fd = ::openat(fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return system_error(path_, "cannot list", errno);
  DIR* list = ::fdopendir(fd);
  if (list == nullptr) {
    ::close(fd);
    return system_error(path_, "cannot list", errno);
  }
  std::vector<std::string> out;
  while (const dirent* entry = ::readdir(list)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") out.emplace_back(name);
  }
  ::closedir(list);
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::string> read_small_file(const Directory& dir, std::string_view name,
                                    int64_t max_bytes) {
  HS_ASSIGN_OR_RETURN(const File file, dir.open_file(name));
  if (file.size() > max_bytes) {
    return fail(
        fmt::format("{}: {} bytes, at most {} are read", file.path(), file.size(), max_bytes));
  }
  std::string text(static_cast<size_t>(file.size()), '\0');
  HS_RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(text.data(), text.size()))));
  return text;
}

}  // namespace hotset
