// SPDX-License-Identifier: Apache-2.0
// Templates and inputs made to exhaust a machine: each is refused with an error, in bounded time,
// memory and stack (the renders run on a 512 KiB thread).
#include <gtest/gtest.h>
#include <pthread.h>

#include <ctime>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "chat/jinja/template.h"

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kMaxSeconds = 30;  // instrumented code is slower and its stack frames larger
constexpr size_t kStackBytes = size_t{4} << 20;
constexpr bool kChecksMemory = false;
#else
constexpr double kMaxSeconds = 2;
constexpr size_t kStackBytes = size_t{512} << 10;
constexpr bool kChecksMemory = true;
#endif
constexpr long kMaxGrowthKb = 64 << 10;

long peak_rss_kb() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::strtol(line.c_str() + 6, nullptr, 10);
  }
  return 0;
}

// CPU time, so that a busy machine does not fail the test.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void reset_peak_rss() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

long rss_kb() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::strtol(line.c_str() + 6, nullptr, 10);
  }
  return 0;
}

void* run_body(void* body) {
  (*static_cast<std::function<void()>*>(body))();
  return nullptr;
}

void on_small_stack(std::function<void()> body) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, run_body, &body), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
}

std::string repeated(std::string_view piece, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += piece;
  return out;
}

struct Bomb {
  const char* name;
  std::string source;
};

std::vector<Bomb> bombs() {
  return {
      {"range", "{% for i in range(10**9) %}x{% endfor %}"},
      {"range list", "{{ range(1000000000) | list | length }}"},
      {"doublings",
       "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% "
       "endfor %}{{ ns.s }}"},
      {"plus doublings",
       "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% "
       "endfor %}"},
      {"self-calling macro", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"},
      {"mutual macros",
       "{% macro f(n) %}{{ g(n) }}{% endmacro %}{% macro g(n) %}{% if n %}{{ f(n) }}{% endif %}{% "
       "endmacro %}{{ f(1) }}"},
      {"nested loops",
       "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor "
       "%}{% endfor %}{% endfor %}"},
      {"long output",
       "{% for a in range(100000) %}{% for b in range(1000) %}0123456789abcdef0123456789abcdef{% "
       "endfor %}{% endfor %}"},
      {"repeat", "{{ 'x' * 10**12 }}"},
      {"repeat of repeat", "{{ ('x' * 10**7) * 100 }}"},
      {"list repeat", "{{ ([1] * 10**9) | length }}"},
      {"list doublings",
       "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% "
       "endfor %}"},
      {"shared lists",
       "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% "
       "endfor %}{{ ns.l }}"},
      {"shared lists as json",
       "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% "
       "endfor %}{{ ns.l | tojson }}"},
      {"shared lists compared",
       "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] "
       "%}{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}"},
      {"deep list",
       "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor "
       "%}"},
      {"deep dict",
       "{% set ns = namespace(l=1) %}{% for i in range(100000) %}{% set ns.l = {'a': ns.l} %}{% "
       "endfor %}"},
      {"deep loops",
       "{% set ns = namespace(l=1) %}{% for i in range(100000) %}{% for j in [ns.l] %}{% set ns.l "
       "= loop %}{% endfor %}{% endfor %}"},
      {"deep methods",
       "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l.index] %}{% "
       "endfor %}"},
      {"many namespaces",
       "{% set ns = namespace() %}{% for i in range(100000) %}{% for j in range(100) %}{% set ns.n "
       "= namespace(p=ns.n) %}{% endfor %}{% endfor %}"},
      {"replace growth", "{% set s = 'a' * 100000 %}{{ s.replace('a', s) }}"},
      {"join growth", "{{ ('x' * 100000).join(['a'] * 100000) }}"},
      {"split growth",
       "{% set ns = namespace(l=[]) %}{% for i in range(100) %}{% set ns.l = ns.l + ('a,' * "
       "1000000).split(',') %}{% endfor %}"},
      {"characters", "{% for i in range(1000) %}{{ ('a' * 1000000) | list | length }}{% endfor %}"},
      {"slow find",
       "{% set h = 'a' * 1000000 %}{% set n = 'a' * 500000 ~ 'b' %}{% for i in range(100000) %}{{ "
       "h.rfind(n) }}{% endfor %}"},
      {"slow strip",
       "{% set h = 'a' * 1000000 %}{% for i in range(100000) %}{{ h.strip('a') }}{% endfor %}"},
      {"slow upper",
       "{% set h = 'a' * 1000000 %}{% for i in range(100000) %}{% set x = h.upper() %}{% endfor "
       "%}"},
      {"slow reverse",
       "{% set h = 'ä' * 1000000 %}{% for i in range(100000) %}{% set x = h[::-1] %}{% endfor %}"},
      {"slow index",
       "{% set h = 'ä' * 1000000 %}{% for i in range(100000) %}{% set x = h[999999] %}{% endfor "
       "%}"},
      {"slow unique", "{{ range(100000) | unique | list | length }}"},
      {"slow sort",
       "{% set l = range(100000) | list %}{% for i in range(1000) %}{% set x = l | "
       "sort(reverse=true) %}{% endfor %}"},
      {"slow copy",
       "{% set l = range(100000) | list %}{% for i in range(100000) %}{% set x = l[1:] %}{% endfor "
       "%}"},
      {"slow contains",
       "{% set l = range(100000) | list %}{% for i in range(100000) %}{{ -1 in l }}{% endfor %}"},
      {"map of filters",
       "{% set l = range(100000) | list %}{% for i in range(1000) %}{% set x = l | map('string') | "
       "map('int') | list %}{% endfor %}"},
      {"big power", "{{ 10 ** 10 ** 10 }}"},
      {"wide format", "{{ '%999999999d' % 1 }}"},
      {"wide indent", "{{ 'a' | indent(10**9, true) }}"},
      {"json indent", "{{ [1] | tojson(indent=10**9) }}"},
      {"endless text", "{% macro f(s) %}{{ f(s ~ s) }}{% endmacro %}{{ f('x') }}"},
      {"block set doublings",
       "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set t %}{{ ns.s }}{{ ns.s }}{% "
       "endset %}{% set ns.s = t %}{% endfor %}"},
  };
}

TEST(Limits, BombsAreRefusedInBoundedTimeMemoryAndStack) {
  for (const Bomb& bomb : bombs()) {
    SCOPED_TRACE(bomb.name);
    const auto compiled = Template::parse(bomb.source);
    ASSERT_TRUE(compiled) << compiled.error().message;
    reset_peak_rss();
    const long before = rss_kb();
    const double start = cpu_seconds();
    on_small_stack([&] {
      const auto rendered = compiled->render(Json::object());
      EXPECT_FALSE(rendered) << "rendered " << rendered->text.size() << " bytes";
    });
    const double seconds = cpu_seconds() - start;
    EXPECT_LE(seconds, kMaxSeconds);
    if (kChecksMemory) {
      EXPECT_LE(peak_rss_kb() - before, kMaxGrowthKb);
    }
    if (seconds > 0.25 * kMaxSeconds) std::printf("%s: %.2f s\n", bomb.name, seconds);
  }
}

TEST(Limits, DeepSourcesAreRefusedByTheParser) {
  for (const size_t n : {size_t{65}, size_t{1000}, size_t{100'000}}) {
    for (const std::string& source :
         {"{{ " + repeated("(", n) + "1" + repeated(")", n) + " }}",
          "{{ " + repeated("[", n) + repeated("]", n) + " }}", "{{ " + repeated("-", n) + "1 }}",
          "{{ " + repeated("not ", n) + "1 }}",
          "{{ " + repeated("{1: ", n) + "1" + repeated("}", n) + " }}",
          "{{ " + repeated("a[", n) + "1" + repeated("]", n) + " }}",
          "{{ " + repeated("f(", n) + "1" + repeated(")", n) + " }}",
          "{{ " + repeated("1 if 1 else ", n) + "1 }}", "{{ 1" + repeated(" if 1", n) + " }}",
          repeated("{% if 1 %}", n) + repeated("{% endif %}", n),
          repeated("{% for x in y %}", n) + repeated("{% endfor %}", n),
          repeated("{% set x %}", n) + repeated("{% endset %}", n)}) {
      const auto compiled = Template::parse(source);
      EXPECT_FALSE(compiled) << source.substr(0, 40);
    }
  }
}

TEST(Limits, LongChainsAreNotDeep) {
  const size_t n = 20'000;
  const std::pair<std::string, std::string> kChains[] = {
      {"{{ 1" + repeated(" + 1", n) + " }}", std::to_string(n + 1)},
      {"{{ ''" + repeated(" ~ 'a'", n) + " }}", repeated("a", n)},
      {"{{ 'a'" + repeated("|upper", n) + " }}", "A"},
      {"{{ 'a'" + repeated(".upper()", n) + " }}", "A"},
      {"{{ true" + repeated(" and true", n) + " }}", "True"},
      {"{% if 0 %}" + repeated("{% elif 0 %}", n) + "{% else %}z{% endif %}", "z"},
  };
  for (const auto& [source, expected] : kChains) {
    const auto compiled = Template::parse(source);
    ASSERT_TRUE(compiled) << compiled.error().message;
    on_small_stack([&] {
      const auto rendered = compiled->render(Json::object());
      ASSERT_TRUE(rendered) << rendered.error().message;
      EXPECT_EQ(rendered->text, expected);
    });
  }
}

TEST(Limits, DeepestAllowedNestingRendersOnASmallStack) {
  std::string source;
  for (int i = 0; i < 30; ++i) source += "{% if true %}";
  source += "{{ " + repeated("(1 + ", 30) + "1" + repeated(")", 30) + " }}";
  for (int i = 0; i < 30; ++i) source += "{% endif %}";
  const auto compiled = Template::parse(source);
  ASSERT_TRUE(compiled) << compiled.error().message;
  on_small_stack([&] {
    const auto rendered = compiled->render(Json::object());
    ASSERT_TRUE(rendered) << rendered.error().message;
    EXPECT_EQ(rendered->text, "31");
  });
}

TEST(Limits, ContextDepthIsBounded) {
  const auto compiled = Template::parse("{{ x | tojson }}");
  ASSERT_TRUE(compiled);
  const auto nested = [](size_t n) {
    return Json{{"x", Json::parse(repeated("[", n) + repeated("]", n))}};
  };
  EXPECT_TRUE(compiled->render(nested(90)));
  const auto refused = compiled->render(nested(200));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kResource);
}

TEST(Limits, BudgetsAreTheCallers) {
  const auto compiled = Template::parse("{% for i in range(100) %}{{ i }},{% endfor %}");
  ASSERT_TRUE(compiled);
  EXPECT_TRUE(compiled->render(Json::object()));
  RenderLimits limits;
  limits.max_steps = 100;
  EXPECT_FALSE(compiled->render(Json::object(), limits));
  limits = {};
  limits.max_output_bytes = 200;
  const auto rendered = compiled->render(Json::object(), limits);
  ASSERT_FALSE(rendered);
  EXPECT_EQ(rendered.error().kind, ErrorKind::kResource);
}

TEST(Limits, ALongConversationFitsTheDefaults) {
  const auto compiled = Template::parse(
      "{% for m in messages[::-1] %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role "
      "+ '\n' + "
      "(m.content | trim) + '<|im_end|>\n' }}{% endfor %}");
  ASSERT_TRUE(compiled);
  Json messages = Json::array();
  for (int i = 0; i < 2000; ++i) {
    messages.push_back({{"role", "user"}, {"content", std::string(4000, 'x')}});
  }
  const auto rendered = compiled->render(Json{{"messages", messages}});
  ASSERT_TRUE(rendered) << rendered.error().message;
  EXPECT_GT(rendered->text.size(), 8'000'000u);
}

TEST(Limits, TimeComesFromTheCaller) {
  const auto compiled = Template::parse("{{ strftime_now('%Y') }}");
  ASSERT_TRUE(compiled);
  RenderLimits limits;
  limits.now_unix_s = 1'790'000'000;
  EXPECT_EQ(compiled->render(Json::object(), limits)->text, "2026");
  EXPECT_EQ(compiled->render(Json::object())->text, "1970");
}

}  // namespace
}  // namespace hotset
