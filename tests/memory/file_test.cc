// SPDX-License-Identifier: Apache-2.0
// What may be opened below a model directory, and what reads do when the system misbehaves.
#include "memory/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

namespace hotset {
namespace {

namespace fs = std::filesystem;

class FileRules : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / ("file-rules-" + std::to_string(::getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_ / "model/sub");
    write("model/plain", "hello");
    write("outside", "secret");
    write("model/sub/inner", "inner");
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name, std::ios::binary) << text;
  }
  void link(const std::string& target, const std::string& name) const {
    fs::create_directories((root_ / name).parent_path());
    fs::create_symlink(target, root_ / name);
  }
  Directory model(std::shared_ptr<const FileCalls> calls = system_file_calls(),
                  const std::string& dir = "model") const {
    return Directory::open((root_ / dir).string(), std::move(calls)).value();
  }
  void expect_refused(const std::string& name, const std::string& why,
                      const std::string& dir = "model") const {
    const auto file = model(system_file_calls(), dir).open_file(name);
    ASSERT_FALSE(file) << name;
    EXPECT_NE(file.error().message.find(why), std::string::npos) << file.error().message;
  }
  fs::path root_;
};

TEST_F(FileRules, PlainNames) {
  for (const char* name : {"a", "model.safetensors", "...", "a b", ".hidden", "\xc3\xa9"}) {
    EXPECT_TRUE(is_plain_file_name(name)) << name;
  }
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"),
        std::string("/etc/passwd"), std::string("../a"), std::string("a\\b"),
        std::string("a\0b", 3), std::string(256, 'a')}) {
    EXPECT_FALSE(is_plain_file_name(name)) << name;
    if (!name.empty()) expect_refused(name, "not a plain file name");
  }
}

TEST_F(FileRules, ReadsByPosition) {
  const auto file = model().open_file("plain").value();
  EXPECT_EQ(file.size(), 5);
  std::string text(3, '\0');
  ASSERT_TRUE(file.read_at(2, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(text, "llo");
  ASSERT_TRUE(file.read_at(5, {}));
  for (const int64_t offset : {int64_t{3}, int64_t{5}, int64_t{1} << 40}) {
    const auto status = file.read_at(offset, std::as_writable_bytes(std::span(text)));
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("ends at offset"), std::string::npos);
    EXPECT_NE(status.error().message.find("plain"), std::string::npos);
  }
  for (const int64_t offset : {int64_t{-1}, INT64_MIN, INT64_MAX}) {
    EXPECT_FALSE(file.read_at(offset, std::as_writable_bytes(std::span(text))));
  }
}

TEST_F(FileRules, NotRegularFilesAreRefusedBeforeOpening) {
  ASSERT_EQ(::mkfifo((root_ / "model/fifo").c_str(), 0600), 0);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string socket_path = (root_ / "model/sock").string();
  ASSERT_LT(socket_path.size(), sizeof(address.sun_path));
  std::copy(socket_path.begin(), socket_path.end(), address.sun_path);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  link("/dev/zero", "model/device");
  link("fifo", "model/fifo-link");
  expect_refused("fifo", "a FIFO");
  expect_refused("fifo-link", "a FIFO");
  expect_refused("sock", "a socket");
  expect_refused("device", "a device");
  expect_refused("sub", "a directory");
  ::close(fd);
}

TEST_F(FileRules, LinksStayBeneathOrInTheBlobs) {
  link("plain", "model/here");
  link("sub/inner", "model/below");
  EXPECT_TRUE(model().open_file("here"));
  EXPECT_TRUE(model().open_file("below"));
  link("../outside", "model/up");
  link((root_ / "outside").string(), "model/absolute");
  link("/etc/passwd", "model/passwd");
  link("up", "model/chain");
  write("model-twin/file", "x");  // a name that only begins like ours
  link("../model-twin/file", "model/twin");
  for (const char* name : {"up", "absolute", "passwd", "chain", "twin"}) {
    expect_refused(name, "outside of the model directory");
  }
  link("nowhere", "model/dangling");
  EXPECT_EQ(model().open_file("dangling").error().kind, ErrorKind::kNotFound);
  link("loop-b", "model/loop-a");
  link("loop-a", "model/loop-b");
  EXPECT_FALSE(model().open_file("loop-a"));

  write("models--O--N/blobs/abc", "blob");
  write("elsewhere/blobs/abc", "blob");
  write("models--O--N/refs/main", "rev");
  link("../../blobs/abc", "models--O--N/snapshots/rev/good");
  link("../../../elsewhere/blobs/abc", "models--O--N/snapshots/rev/other-blobs");
  link("../../refs/main", "models--O--N/snapshots/rev/ref");
  EXPECT_TRUE(model(system_file_calls(), "models--O--N/snapshots/rev").open_file("good"));
  expect_refused("other-blobs", "outside", "models--O--N/snapshots/rev");
  expect_refused("ref", "outside", "models--O--N/snapshots/rev");
}

TEST_F(FileRules, AFileSwappedWhileOpeningIsNoticed) {
  auto calls = std::make_shared<FileCalls>(*system_file_calls());
  const fs::path root = root_;
  calls->openat = [root](int dir, const char* name, int flags) {
    if (std::string(name) == "plain") {
      fs::remove(root / "model/plain");
      fs::create_symlink("../outside", root / "model/plain");
    }
    return ::openat(dir, name, flags);
  };
  const auto file = model(calls).open_file("plain");
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().message.find("changed while it was opened"), std::string::npos);
}

TEST_F(FileRules, InterruptedAndShortReadsAreFinished) {
  auto calls = std::make_shared<FileCalls>(*system_file_calls());
  int count = 0;
  calls->pread = [&count](int fd, void* to, size_t bytes, off_t offset) -> ssize_t {
    if (++count % 2 == 1) {
      errno = EINTR;
      return -1;
    }
    return ::pread(fd, to, std::min<size_t>(bytes, 1), offset);
  };
  EXPECT_EQ(read_small_file(model(calls), "plain", 100).value(), "hello");
  EXPECT_EQ(count, 10);
}

TEST_F(FileRules, SmallFilesAreBounded) {
  EXPECT_EQ(read_small_file(model(), "plain", 5).value(), "hello");
  const auto refused = read_small_file(model(), "plain", 4);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("at most 4"), std::string::npos);
  EXPECT_EQ(read_small_file(model(), "absent", 4).error().kind, ErrorKind::kNotFound);
}

TEST_F(FileRules, NamesAndMissingDirectories) {
  EXPECT_EQ(model().names().value(), (std::vector<std::string>{"plain", "sub"}));
  EXPECT_TRUE(model().contains("plain"));
  EXPECT_FALSE(model().contains("../outside"));
  const auto missing = Directory::open((root_ / "absent").string());
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind, ErrorKind::kNotFound);
  EXPECT_FALSE(Directory::open((root_ / "outside").string()));
}

}  // namespace
}  // namespace hotset
