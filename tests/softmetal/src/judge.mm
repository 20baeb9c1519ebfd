#include "judge.hpp"

#import <Foundation/Foundation.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <set>
#include <string>

#include "faults.hpp"
#include "settings.hpp"
#include "softmetal.h"

namespace softmetal {
namespace {

struct Violation {
  const Rule* rule;
  std::string text;
};

struct Record {
  std::mutex mutex;
  std::deque<Violation> violations;
  std::set<std::string> allowed;
};

Record& record() {
  static auto* const it = [] {
    auto* made = new Record;  // never destroyed: corpses may still accuse at exit
    made->allowed = list_setting("SOFTMETAL_ALLOW");
    return made;
  }();
  return *it;
}

const char* tag_name(const Rule& rule) { return rule.tag == Tag::apple ? "APPLE" : "OURS"; }

/// False where the rule is not judged.
bool note(const Rule& rule, const std::string& text) {
  Record& r = record();
  std::lock_guard lock(r.mutex);
  if (r.allowed.contains(rule.name)) return false;
  r.violations.push_back({&rule, text});
  std::fprintf(stderr, "softmetal: broken rule %s [%s] %s (%s)\n", rule.name, tag_name(rule),
               text.c_str(), rule.source);
  return true;
}

std::string formatted(const char* format, va_list arguments) {
  char text[512];
  std::vsnprintf(text, sizeof text, format, arguments);
  return text;
}

}  // namespace

void broken(const Rule& rule, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = formatted(format, arguments);
  va_end(arguments);
  if (!note(rule, text)) return;
  const OnViolation mode = on_violation();
  if (mode == OnViolation::abort) std::abort();
  if (mode == OnViolation::record || rule.verdict == Verdict::records) return;
  if (strikes(Fault::log_and_do_nothing)) return;
  [NSException raise:[NSString stringWithUTF8String:rule.name]
              format:@"%s [%s]: %s", rule.source, tag_name(rule), text.c_str()];
}

}  // namespace softmetal

using namespace softmetal;

size_t softmetal_violations() {
  std::lock_guard lock(record().mutex);
  return record().violations.size();
}

size_t softmetal_violations_of(const char* rule) {
  std::lock_guard lock(record().mutex);
  size_t count = 0;
  for (const Violation& violation : record().violations) {
    count += std::strcmp(violation.rule->name, rule) == 0;
  }
  return count;
}

const char* softmetal_violation_rule(size_t index) {
  std::lock_guard lock(record().mutex);
  return index < record().violations.size() ? record().violations[index].rule->name : nullptr;
}

const char* softmetal_violation_text(size_t index) {
  std::lock_guard lock(record().mutex);
  return index < record().violations.size() ? record().violations[index].text.c_str() : nullptr;
}

void softmetal_clear_violations() {
  std::lock_guard lock(record().mutex);
  record().violations.clear();
}

void softmetal_allow(const char* rule, int allowed) {
  std::lock_guard lock(record().mutex);
  if (allowed) {
    record().allowed.insert(rule);
  } else {
    record().allowed.erase(rule);
  }
}

size_t softmetal_rules() { return std::size(rules::all); }

const char* softmetal_rule_name(size_t index) {
  return index < softmetal_rules() ? rules::all[index]->name : nullptr;
}

const char* softmetal_rule_tag(size_t index) {
  return index < softmetal_rules() ? tag_name(*rules::all[index]) : nullptr;
}

const char* softmetal_rule_verdict(size_t index) {
  if (index >= softmetal_rules()) return nullptr;
  return rules::all[index]->verdict == Verdict::raises ? "raises" : "records";
}

const char* softmetal_rule_source(size_t index) {
  return index < softmetal_rules() ? rules::all[index]->source : nullptr;
}
