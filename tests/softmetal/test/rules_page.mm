// Prints rules.md from the table of rules.
#include <cstdio>

#include "support.hpp"

void print_rules() {
  std::puts(
      "# Rules of the double\n\n"
      "Printed by `softmetal_tests --rules`; a test holds this page against it. Every rule has a "
      "test "
      "in `test/` that\nbreaks it on purpose. APPLE: a public header or page of Apple states it. "
      "OURS: "
      "stricter than any document.\nraises: an NSException named after the rule, where Apple's "
      "validation asserts. records: noted and printed, and the\ncall goes on as badly as the "
      "hardware "
      "might. All are in the list that `softmetal.h` reads.\n\n"
      "| rule | tag | verdict | source |\n| --- | --- | --- | --- |");
  for (size_t i = 0; i < softmetal_rules(); ++i) {
    std::printf("| %s | %s | %s | %s |\n", softmetal_rule_name(i), softmetal_rule_tag(i),
                softmetal_rule_verdict(i), softmetal_rule_source(i));
  }
  std::puts("\n## Faults and open behaviours\n\n| name | what it does |\n| --- | --- |");
  for (size_t i = 0; i < softmetal_faults(); ++i) {
    std::printf("| %s | %s |\n", softmetal_fault_name(i), softmetal_fault_meaning(i));
  }
}
