// The tests of the double: what they say and how they are counted.
#pragma once
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <cstdlib>
#include <functional>
#include <source_location>
#include <string>
#include <thread>
#include <vector>

#include "softmetal.h"

struct Test {
  const char* name;
  void (*run)();
};
std::vector<Test>& tests();

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

using Place = std::source_location;

void check(bool condition, const std::string& what, Place place = Place::current());
void check_near(double value, double expected, double tolerance, const std::string& what,
                Place place = Place::current());

/// `action` must break exactly this rule, and raise if the rule says so. Counts the rule as tested.
void breaks(const char* rule, const std::function<void()>& action, Place place = Place::current());
/// `action` must break no rule.
void allowed(const char* what, const std::function<void()>& action, Place place = Place::current());

/// Waits until `condition` holds, for two seconds at most.
bool eventually(const std::function<bool()>& condition);

/// A fault that is on as long as this lives.
struct WithFault {
  WithFault(const char* name, double value = 1, unsigned skip = 0, unsigned count = 0)
      : name_(name) {
    check(softmetal_set_fault_window(name, value, skip, count) == 1, name);
  }
  ~WithFault() { softmetal_clear_fault(name_); }
  /// Waits until it has struck once more.
  void wait_for_strike() {
    check(eventually([this] { return softmetal_fault_strikes(name_) > seen_; }), "a strike");
    seen_ = softmetal_fault_strikes(name_);
  }

 private:
  const char* name_;
  size_t seen_ = 0;
};

/// Devices made as long as this lives are Intel Macs, whatever the environment says.
struct ManagedStorage {
  ManagedStorage() { softmetal_set_storage("managed"); }
  ~ManagedStorage() { softmetal_set_storage(std::getenv("SOFTMETAL_STORAGE")); }
};

/// Runs `action` on a thread of its own, which GNUstep is told of, with a pool.
class InThread {
 public:
  explicit InThread(std::function<void()> action);
  ~InThread() { join(); }
  void join();

 private:
  std::thread thread_;
};
void sleep_milliseconds(double milliseconds);
