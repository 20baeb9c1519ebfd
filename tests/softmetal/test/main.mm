// softmetal_tests [part of a test's name]   runs the tests; those named "seeded ..." have a mistake
//                                           in them and run, and fail, only when asked for
// softmetal_tests --rules                   prints rules.md
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>
#include <thread>

#include "objc_guard.hpp"
#include "support.hpp"

void print_rules();  // rules_page.mm

namespace {

int failures = 0;
int checks = 0;
std::set<std::string> rules_tested;

void fail(const std::string& what, const Place& place) {
  ++failures;
  std::printf("  %s:%u: %s\n", place.file_name(), place.line(), what.c_str());
}

std::string rules_broken() {
  std::string all;
  for (size_t i = 0; i < softmetal_violations(); ++i) {
    all += std::string(i ? ", " : "") + softmetal_violation_rule(i);
  }
  return all;
}

/// The names of the rules broken, each once.
std::set<std::string> different_rules_broken() {
  std::set<std::string> names;
  for (size_t i = 0; i < softmetal_violations(); ++i) names.insert(softmetal_violation_rule(i));
  return names;
}

std::string verdict_of(const std::string& rule) {
  for (size_t i = 0; i < softmetal_rules(); ++i) {
    if (rule == softmetal_rule_name(i)) return softmetal_rule_verdict(i);
  }
  return "unknown";
}

std::string live_objects() {
  char text[1024];
  softmetal_describe_live_objects(text, sizeof text);
  return text;
}

void run(const Test& test) {
  const int before = failures;
  softmetal_clear_faults();
  softmetal_clear_violations();
  NSAutoreleasePool* pool = [[NSAutoreleasePool alloc] init];
  const std::string raised = exception_of(test.run);
  [pool drain];
  if (!raised.empty()) fail("raised " + raised, Place::current());
  // Worker threads let go of a buffer a moment after those who wait for it.
  if (!eventually([] { return softmetal_live_objects(nullptr) == 0; })) {
    fail("live objects:\n" + live_objects(), Place::current());
  }
  if (softmetal_violations()) fail("left over: " + rules_broken(), Place::current());
  std::printf("%s %s\n", failures == before ? "ok  " : "FAIL", test.name);
}

}  // namespace

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

void check(bool condition, const std::string& what, Place place) {
  ++checks;
  if (!condition) fail(what, place);
}

void check_near(double value, double expected, double tolerance, const std::string& what,
                Place place) {
  const bool near = std::fabs(value - expected) <= tolerance ||
                    (std::isnan(value) && std::isnan(expected)) || value == expected;
  check(near, what + ": " + std::to_string(value) + ", expected " + std::to_string(expected),
        place);
}

void breaks(const char* rule, const std::function<void()>& action, Place place) {
  softmetal_clear_violations();
  const std::string raised = exception_of(action);
  const std::string expected = verdict_of(rule) == "raises" ? rule : "";
  check(raised == expected, "expected exception '" + expected + "', got '" + raised + "'", place);
  check(different_rules_broken() == std::set<std::string>{rule},
        std::string("expected ") + rule + ", broken: " + rules_broken(), place);
  rules_tested.insert(rule);
  softmetal_clear_violations();
}

void allowed(const char* what, const std::function<void()>& action, Place place) {
  softmetal_clear_violations();
  const std::string raised = exception_of(action);
  check(raised.empty(), std::string(what) + " raised " + raised, place);
  check(softmetal_violations() == 0, std::string(what) + " broke " + rules_broken(), place);
  softmetal_clear_violations();
}

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 10000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return condition();
}

InThread::InThread(std::function<void()> action)
    : thread_([action = std::move(action)] {
        GSRegisterCurrentThread();
        @autoreleasepool {
          action();
        }
        GSUnregisterCurrentThread();
      }) {}

void InThread::join() {
  if (thread_.joinable()) thread_.join();
}

void sleep_milliseconds(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}

int main(int count, char** arguments) {
  if (count > 1 && !std::strcmp(arguments[1], "--rules")) {
    print_rules();
    return 0;
  }
  const char* part = count > 1 ? arguments[1] : "";
  int ran = 0;
  for (const Test& test : tests()) {
    const bool seeded = std::strstr(test.name, "seeded") != nullptr;
    const bool asked = std::strstr(part, "seeded") != nullptr;
    if (!std::strstr(test.name, part) || seeded != asked) continue;
    ++ran;
    run(test);
  }
  for (size_t i = 0; !*part && i < softmetal_rules(); ++i) {
    if (rules_tested.contains(softmetal_rule_name(i))) continue;
    fail(std::string("no test breaks ") + softmetal_rule_name(i), Place::current());
  }
  std::printf("%d tests, %d checks, %zu of %zu rules broken on purpose, %zu live objects, "
              "%d failures\n",
              ran, checks, rules_tested.size(), softmetal_rules(), softmetal_live_objects(nullptr),
              failures);
  std::fflush(stdout);  // a leak report ends the process without
  return failures ? 1 : 0;
}
