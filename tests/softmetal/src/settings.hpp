// What the environment and softmetal.h set once for all.
#pragma once
#include <chrono>
#include <cstdint>
#include <set>
#include <string>

namespace softmetal {

enum class OnViolation { raise, abort, record };

OnViolation on_violation();
bool storage_is_managed();
unsigned device_count();
double block_seconds();
std::uint64_t working_set();
/// The words of a comma-separated environment variable.
std::set<std::string> list_setting(const char* variable);

/// One time in four sleeps a random while of at most the set delay: every thread has its own seeded
/// sequence.
void random_delay();

}  // namespace softmetal
