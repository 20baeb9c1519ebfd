#include "settings.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>
#include <thread>

#include "softmetal.h"

namespace softmetal {
namespace {

double number(const char* variable, double otherwise) {
  const char* text = std::getenv(variable);
  return text && *text ? std::strtod(text, nullptr) : otherwise;
}

OnViolation mode_named(const char* text) {
  if (text && !std::strcmp(text, "abort")) return OnViolation::abort;
  if (text && !std::strcmp(text, "record")) return OnViolation::record;
  return OnViolation::raise;
}

bool is_managed(const char* text) { return !text || std::strcmp(text, "shared") != 0; }

struct Settings {
  std::atomic<OnViolation> on_violation{mode_named(std::getenv("SOFTMETAL_ON_VIOLATION"))};
  std::atomic<bool> managed{is_managed(std::getenv("SOFTMETAL_STORAGE"))};
  std::atomic<unsigned> devices{static_cast<unsigned>(number("SOFTMETAL_DEVICES", 1))};
  std::atomic<std::uint64_t> working_set{
      static_cast<std::uint64_t>(number("SOFTMETAL_WORKING_SET", 0x1p32))};
  std::atomic<unsigned> delay{static_cast<unsigned>(number("SOFTMETAL_DELAY_US", 300))};
  std::atomic<double> block_seconds{number("SOFTMETAL_BLOCK_SECONDS", 5)};
  std::atomic<std::uint64_t> seed{static_cast<std::uint64_t>(number("SOFTMETAL_SEED", 1))};
  std::atomic<std::uint64_t> generation{0};  // grows with every new seed
};

Settings& settings() {
  static Settings it;
  return it;
}

}  // namespace

OnViolation on_violation() { return settings().on_violation; }
bool storage_is_managed() { return settings().managed; }
unsigned device_count() { return settings().devices; }
double block_seconds() { return settings().block_seconds; }
std::uint64_t working_set() { return settings().working_set; }

std::set<std::string> list_setting(const char* variable) {
  std::set<std::string> words;
  const char* text = std::getenv(variable);
  std::istringstream stream(text ? text : "");
  for (std::string word; std::getline(stream, word, ',');) {
    if (!word.empty()) words.insert(word);
  }
  return words;
}

void random_delay() {
  static std::atomic<std::uint64_t> threads{0};
  thread_local const std::uint64_t thread = threads++;
  thread_local std::uint64_t generation = ~std::uint64_t{0};
  thread_local std::mt19937_64 random;
  if (generation != settings().generation) {
    generation = settings().generation;
    random.seed(settings().seed * 1000003 + thread);
  }
  const unsigned longest = settings().delay;
  const bool comes = random() % 4 == 0;  // always would only make the tests slow
  if (longest == 0 || !comes) return;
  std::this_thread::sleep_for(std::chrono::microseconds(random() % (longest + 1)));
}

}  // namespace softmetal

using softmetal::settings;

void softmetal_set_storage(const char* text) { settings().managed = softmetal::is_managed(text); }
void softmetal_set_devices(unsigned count) { settings().devices = count; }
void softmetal_set_working_set(uint64_t bytes) { settings().working_set = bytes; }
void softmetal_set_delay(unsigned microseconds) { settings().delay = microseconds; }
void softmetal_set_block_seconds(double seconds) { settings().block_seconds = seconds; }
void softmetal_set_on_violation(const char* text) {
  settings().on_violation = softmetal::mode_named(text);
}
void softmetal_set_seed(uint64_t seed) {
  settings().seed = seed;
  ++settings().generation;
}
