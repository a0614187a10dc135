// SPDX-License-Identifier: Apache-2.0
// hotset chat on a real terminal: the bar while loading, Ctrl-C that stops an answer and not the
// program, the commands, the end of input.
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <string>

namespace hotset {
namespace {

class TerminalChat {
 public:
  explicit TerminalChat(const char* flag) {
    pid_ = ::forkpty(&fd_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    const char* model = HOTSET_SOURCE_DIR "/models/demo";
    ::execl(HOTSET_BINARY, HOTSET_BINARY, "chat", model, flag, static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ~TerminalChat() {
    ::close(fd_);
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
  }
  TerminalChat(const TerminalChat&) = delete;
  TerminalChat& operator=(const TerminalChat&) = delete;

  void type(const std::string& text) const {
    ASSERT_EQ(::write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // Everything shown until `text` has been (it included), or what there is after a while.
  std::string read_until(const std::string& text) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < end) {
      if (const size_t at = shown_.find(text); at != std::string::npos) {
        const std::string out = shown_.substr(0, at + text.size());
        shown_.erase(0, at + text.size());
        return out;
      }
      pollfd poll_fd{fd_, POLLIN, 0};
      if (::poll(&poll_fd, 1, 100) <= 0) continue;
      char buffer[4096];
      const ssize_t count = ::read(fd_, buffer, sizeof(buffer));
      if (count <= 0) break;
      shown_.append(buffer, static_cast<size_t>(count));
    }
    ADD_FAILURE() << "'" << text << "' was never shown, but: " << shown_;
    return {};
  }
  int wait_for_exit() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  int fd_ = -1;
  pid_t pid_ = -1;
  std::string shown_;
};

constexpr const char* kPrompt = ">\033[0m ";

TEST(Terminal, CtrlCStopsTheAnswerAndNotTheProgram) {
  TerminalChat chat("--ignore-eos");
  const std::string start = chat.read_until(kPrompt);
  EXPECT_NE(start.find("\rloading ["), std::string::npos) << start;
  chat.type("/stats\n");
  EXPECT_NE(chat.read_until(kPrompt).find("no answer yet"), std::string::npos);
  chat.type("Tell me a story.\n");
  chat.read_until("\r\n");  // the echo
  chat.read_until("e");     // the answer has begun
  chat.type("\x03");
  chat.read_until(kPrompt);
  chat.type("/stats\n");
  EXPECT_NE(chat.read_until(kPrompt).find("output tokens"), std::string::npos);
  chat.type("/quit\n");
  EXPECT_EQ(chat.wait_for_exit(), 0);
}

TEST(Terminal, CommandsAndTheEndOfInput) {
  TerminalChat chat("--temperature=0");
  chat.read_until(kPrompt);
  chat.type("What is 27 + 48?\n");
  EXPECT_NE(chat.read_until(kPrompt).find("75"), std::string::npos);
  chat.type("   \n");
  EXPECT_EQ(chat.read_until(kPrompt), std::string("   \r\n\033[1m") + kPrompt) << "no message";
  chat.type("/system Be brief.\n");
  EXPECT_NE(chat.read_until(kPrompt).find("System message set"), std::string::npos);
  chat.type("/reset\n");
  EXPECT_NE(chat.read_until(kPrompt).find("forgotten"), std::string::npos);
  chat.type("\x03");
  EXPECT_NE(chat.read_until(kPrompt).find("Ctrl-C again"), std::string::npos);
  chat.type("\x04");
  EXPECT_EQ(chat.wait_for_exit(), 0);
}

TEST(Terminal, CtrlCRightAfterThePromptIsNeverLost) {
  TerminalChat chat("--temperature=0");
  chat.read_until(kPrompt);
  for (int i = 0; i < 25; ++i) {
    chat.type("\x03");
    ASSERT_NE(chat.read_until(kPrompt).find("Ctrl-C again"), std::string::npos) << "round " << i;
    chat.type(" \n");  // or the next one would end the program
    chat.read_until(kPrompt);
  }
  chat.type("\x04");
  EXPECT_EQ(chat.wait_for_exit(), 0);
}

}  // namespace
}  // namespace hotset
