// metal_driver [doctest options]   Every public path of the engine interface on the Metal backend
// and the double, without Python, so that LeakSanitizer sees whatever stays behind.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "devices.hpp"
#include "softmetal.h"

int main(int argc, char** argv) {
  // The list of devices is made once and for ever. Made now, it keeps no device of the double.
  softmetal_set_fault("no_device", 1);
  mpsnn_loss::cpu_device();
  softmetal_clear_faults();
  const int result = doctest::Context(argc, argv).run();
  std::printf("%zu encodes, %zu command buffers, %zu images; %zu live objects\n",
              softmetal_encodes(), softmetal_commits(), softmetal_images_made(),
              softmetal_live_objects(nullptr));
  std::fflush(stdout);  // a report of leaks ends the process without
  return softmetal_live_objects(nullptr) == 0 ? result : EXIT_FAILURE;
}
