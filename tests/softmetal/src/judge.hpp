// What happens when a rule is broken.
#pragma once
#include "rules.hpp"

namespace softmetal {

/// Records and prints the breach, then raises an NSException named after the rule where the rule
/// says so. Returns for rules that only record, and for all under the fault "log_and_do_nothing"
/// and the mode "record": after a rule that raises, the caller must then return without doing
/// anything.
void broken(const Rule& rule, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace softmetal
