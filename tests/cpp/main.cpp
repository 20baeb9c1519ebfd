// Runs the tests; skips them all where MPSNN_LOSS_ISA names a set that this processor does not
// have.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cpu/instruction_sets.hpp"
#include "cpu/thread_pool.hpp"

namespace {

using namespace mpsnn_loss;

constexpr int kSkipped = 77;  // SKIP_RETURN_CODE in CMakeLists.txt

bool is_compiled(const std::string& name) {
  const auto names = cpu::compiled_instruction_sets();
  return std::find(names.begin(), names.end(), name) != names.end();
}

TEST_CASE("the environment chooses the instruction set and the number of threads") {
  if (const char* const isa = std::getenv("MPSNN_LOSS_ISA")) {
    CHECK(std::string(cpu::active_instruction_set().name) == isa);
  }
  if (const char* const threads = std::getenv("MPSNN_LOSS_NUM_THREADS")) {
    CHECK(std::to_string(cpu::num_threads()) == threads);
  }
  CHECK(is_compiled("baseline"));
  CHECK(is_compiled(cpu::active_instruction_set().name));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::printf("instruction set %s, %d threads\n", cpu::active_instruction_set().name,
                cpu::num_threads());
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    const char* const isa = std::getenv("MPSNN_LOSS_ISA");
    return isa != nullptr && is_compiled(isa) ? kSkipped : EXIT_FAILURE;
  }
  return doctest::Context(argc, argv).run();
}
