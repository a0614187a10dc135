// SPDX-License-Identifier: Apache-2.0
#include "apps/run_program.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

#include "base/check.h"

namespace hotset::test {
namespace {

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& text : strings) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

[[noreturn]] void become(const std::string& binary, std::vector<std::string> args,
                         std::vector<std::string> environment) {
  args.insert(args.begin(), binary);
  environment.emplace_back("PATH=/usr/bin:/bin");
  auto argv = pointers_to(args);
  auto envp = pointers_to(environment);
  ::execve(binary.c_str(), argv.data(), envp.data());
  ::_exit(127);
}

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Appends what is there; false at the end of the pipe.
bool read_some(int fd, std::string& out) {
  char buffer[4096];
  const ssize_t count = ::read(fd, buffer, sizeof(buffer));
  if (count <= 0) return false;
  out.append(buffer, static_cast<size_t>(count));
  return true;
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& args, const std::string& input,
                          const std::vector<std::string>& environment) {
  int in[2], out[2], err[2];
  HS_CHECK(::pipe(in) == 0 && ::pipe(out) == 0 && ::pipe(err) == 0, "no pipes");
  const pid_t pid = ::fork();
  HS_CHECK(pid >= 0, "no fork");
  if (pid == 0) {
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(err[1], 2);
    for (const int fd : {in[0], in[1], out[0], out[1], err[0], err[1]}) ::close(fd);
    become(HOTSET_BINARY, args, environment);
  }
  for (const int fd : {in[0], out[1], err[1]}) ::close(fd);
  std::signal(SIGPIPE, SIG_IGN);
  std::thread writer([&] {
    (void)!::write(in[1], input.data(), input.size());
    ::close(in[1]);
  });
  ProgramResult result;
  bool out_is_open = true, err_is_open = true;
  while (out_is_open || err_is_open) {
    pollfd fds[2] = {{out_is_open ? out[0] : -1, POLLIN, 0},
                     {err_is_open ? err[0] : -1, POLLIN, 0}};
    ::poll(fds, 2, -1);
    if (fds[0].revents != 0) out_is_open = read_some(out[0], result.out);
    if (fds[1].revents != 0) err_is_open = read_some(err[0], result.err);
  }
  writer.join();
  ::close(out[0]);
  ::close(err[0]);
  int status = 0;
  rusage usage{};
  ::wait4(pid, &status, 0, &usage);
  result.exit_code = exit_code_of(status);
  for (const timeval& time : {usage.ru_utime, usage.ru_stime}) {
    result.cpu_s += static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  }
  result.max_rss_kib = usage.ru_maxrss;
  return result;
}

BackgroundProgram::BackgroundProgram(const std::vector<std::string>& args,
                                     const std::string& binary) {
  char name[] = "/tmp/hotset-test-XXXXXX";
  const int fd = ::mkstemp(name);
  HS_CHECK(fd >= 0, "no temporary file");
  error_file_ = name;
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(fd, 2);
    ::close(fd);
    become(binary, args, {});
  }
  ::close(fd);
}

BackgroundProgram::~BackgroundProgram() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::unlink(error_file_.c_str());
}

std::string BackgroundProgram::read_errors() const {
  std::ifstream in(error_file_);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

uint16_t BackgroundProgram::wait_for_port() const {
  for (int i = 0; i < 12'000; ++i) {
    const std::string errors = read_errors();
    const size_t at = errors.find("http://127.0.0.1:");
    if (at != std::string::npos && errors.find("/v1", at) != std::string::npos) {
      return static_cast<uint16_t>(std::stoi(errors.substr(at + 17)));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return 0;
}

void BackgroundProgram::send_signal(int signal) const {
  ::kill(pid_, signal);
}

int BackgroundProgram::wait_for_exit(double timeout_s) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
  while (std::chrono::steady_clock::now() < end) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return exit_code_of(status);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return -1;
}

}  // namespace hotset::test
