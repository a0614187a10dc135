// SPDX-License-Identifier: Apache-2.0
// Calls: macros, methods and the global functions.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "chat/jinja/interpreter.h"
#include "chat/jinja/interpreter_guards.h"
#include "chat/jinja/print.h"

namespace hotset::jinja {
namespace {

constexpr int64_t kMaxRangeItems = 100'000;  // as the Python sandbox has it

Result<Value> call_range(const Arguments& args, Budget& budget) {
  if (!args.named.empty() || args.positional.empty() || args.positional.size() > 3) {
    return fail("range takes 1 to 3 arguments");
  }
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < args.positional.size(); ++i) {
    if (args.positional[i].is<Undefined>()) return fail_undefined(args.positional[i]);
    if (args.positional[i].is<None>()) return fail("range of None");
    HS_ASSIGN_OR_RETURN(bounds[i], int_argument(&args.positional[i], "range", 0));
  }
  if (args.positional.size() == 1) std::swap(bounds[0], bounds[1]);
  const auto [start, stop, step] = bounds;
  if (step == 0) return fail("range() arg 3 must not be zero");
  const Int distance = step > 0 ? Int{stop} - start : Int{start} - stop;
  const Int stride = step > 0 ? Int{step} : -Int{step};
  const Int count = distance > 0 ? (distance + stride - 1) / stride : 0;
  if (count > kMaxRangeItems) {
    return fail(fmt::format("range of more than {} items", kMaxRangeItems), ErrorKind::kResource);
  }
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(count));
  for (Int i = 0; i < count; ++i) items.emplace_back(start + i * step);
  return make_list(std::move(items), false, &budget);
}

Result<Value> call_strftime(const Arguments& args, Budget& budget) {
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"format"}));
  HS_ASSIGN_OR_RETURN(const Text format, text_argument(bound[0], "format"));
  const std::time_t now = budget.limits().now_unix_s;
  std::tm local{};
  if (localtime_r(&now, &local) == nullptr) return fail("the time is out of range");
  char buffer[512];
  const std::string pattern = std::string(format.view().substr(0, 256)) + "|";
  const size_t length = std::strftime(buffer, sizeof(buffer), pattern.c_str(), &local);
  if (length == 0 || format.num_bytes() > 256) return fail("strftime_now: the result is too long");
  const std::string_view text(buffer, length - 1);
  return Value(format.any_untrusted() ? Text::untrusted(text, &budget)
                                      : Text::trusted(text, &budget));
}

Result<Value> named_dict(const Arguments& args, Budget& budget) {
  std::vector<std::pair<Value, Value>> entries;
  if (args.positional.size() > 1) return fail("dict takes at most one positional argument");
  if (!args.positional.empty()) {
    const auto* dict = args.positional[0].get<DictRef>();
    if (dict == nullptr) return fail("dict: the argument must be a mapping");
    entries = (*dict)->entries;
  }
  for (const auto& [name, value] : args.named) {
    entries.emplace_back(Value(Text::trusted(name, &budget)), value);
  }
  return make_dict(std::move(entries), &budget);
}

}  // namespace

Result<Value> Interpreter::call(const Value& callee, const Arguments& args) {
  if (const auto* method = callee.get<MethodRef>()) {
    const Value& receiver = (*method)->receiver;
    auto out = find_method(receiver, (*method)->name)->apply(receiver, args, budget_);
    if (out) return out;
    return fail(fmt::format("{}: {}", (*method)->name, out.error().message), out.error().kind);
  }
  if (const auto* macro = callee.get<const MacroDecl*>()) return call_macro(**macro, args);
  if (const auto* global = callee.get<Global>()) return call_global(*global, args);
  if (callee.is<Undefined>()) return fail_undefined(callee);
  return fail(fmt::format("'{}' object is not callable", type_name(callee)));
}

// The macro's scope is the innermost while its defaults are evaluated: they may name parameters
// to their left.
Status Interpreter::bind_parameters(const MacroDecl& macro, const Arguments& args) {
  if (args.positional.size() > macro.parameters.size()) {
    return fail(fmt::format("macro '{}' takes not more than {} argument(s)", macro.spelling,
                            macro.parameters.size()));
  }
  size_t named_used = 0;
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [symbol, name] = macro.parameters[i];
    const auto it =
        std::find_if(args.named.begin(), args.named.end(),
                     [&wanted = name](const auto& entry) { return entry.first == wanted; });
    if (it != args.named.end()) {
      ++named_used;
      if (i < args.positional.size()) {
        return fail(fmt::format("macro '{}' got argument '{}' twice", macro.spelling, name));
      }
      store(symbol, it->second);
    } else if (i < args.positional.size()) {
      store(symbol, args.positional[i]);
    } else if (macro.defaults[i]) {
      HS_ASSIGN_OR_RETURN(Value value, evaluate(*macro.defaults[i]));
      store(symbol, std::move(value));
    } else {
      store(symbol, make_undefined(fmt::format("parameter '{}' was not provided", name), budget_));
    }
  }
  if (named_used < args.named.size()) {
    return fail(fmt::format("macro '{}' takes no keyword argument '{}'", macro.spelling,
                            args.named.back().first));
  }
  return {};
}

Result<Value> Interpreter::call_macro(const MacroDecl& macro, const Arguments& args) {
  const DepthGuard depth(*this);
  HS_RETURN_IF_ERROR(over_budget());
  const ScopeGuard scope(*this, true);
  HS_RETURN_IF_ERROR(bind_parameters(macro, args));
  HS_ASSIGN_OR_RETURN(const Text text, render_block(macro.body));
  return Value(text);
}

Result<Value> Interpreter::call_namespace(const Arguments& args) {
  auto space = std::make_unique<Namespace>();
  space->charge = Charge(&budget_, 128);
  if (args.positional.size() > 1 ||
      (args.positional.size() == 1 && !args.positional[0].is<DictRef>())) {
    return fail("namespace takes a mapping and named arguments");
  }
  const auto put = [&](std::string_view name, const Value& value) {
    space->charge.add(128 + name.size());
    space->attributes.emplace_back(name, value);
  };
  if (!args.positional.empty()) {
    for (const auto& [key, value] : (*args.positional[0].get<DictRef>())->entries) {
      const auto* name = key.get<Text>();
      if (name == nullptr) return fail("namespace: keys must be strings");
      put(name->view(), value);
    }
  }
  for (const auto& [name, value] : args.named) put(name, value);
  namespaces_.push_back(std::move(space));
  return Value(namespaces_.back().get());
}

Result<Value> Interpreter::call_global(Global global, const Arguments& args) {
  switch (global) {
    case Global::kRange:
      return call_range(args, budget_);
    case Global::kNamespace:
      return call_namespace(args);
    case Global::kDict:
      return named_dict(args, budget_);
    case Global::kStrftimeNow:
      return call_strftime(args, budget_);
    case Global::kRaiseException:
      break;
  }
  HS_ASSIGN_OR_RETURN(const auto bound, bind(args, {"message"}));
  if (bound[0] == nullptr) return fail("raise_exception needs a message");
  HS_ASSIGN_OR_RETURN(const Text message, to_text(*bound[0], budget_));
  HS_RETURN_IF_ERROR(over_budget());
  raised_ = true;
  return fail(std::string(message.view()));
}

}  // namespace hotset::jinja
