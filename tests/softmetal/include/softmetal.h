// What a test asks of the double. Plain C, so that ctypes can call it.
//
// Environment, read when first needed:
//   SOFTMETAL_STORAGE=managed|shared   kind of device: an Intel Mac (default) or Apple silicon
//   SOFTMETAL_DEVICES=n                how many devices there are (default 1)
//   SOFTMETAL_WORKING_SET=n            recommendedMaxWorkingSetSize, bytes (default 4 GiB)
//   SOFTMETAL_SEED=n                   seed of the delays of the worker threads (default 1)
//   SOFTMETAL_DELAY_US=n               longest of those delays, microseconds (default 300)
//   SOFTMETAL_BLOCK_SECONDS=x          how long commandBuffer waits where no slot can come free
//   SOFTMETAL_FAULT=name[=value][@skip][#count],...   faults, as softmetal_set_fault_window
//   SOFTMETAL_ALLOW=rule,...           rules that are not judged
//   SOFTMETAL_ON_VIOLATION=raise|abort|record   what a broken rule does besides being recorded
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#define SOFTMETAL_API __attribute__((visibility("default")))

// Broken rules, oldest first. Texts stay valid until the list is cleared.
SOFTMETAL_API size_t softmetal_violations(void);
SOFTMETAL_API size_t softmetal_violations_of(const char* rule);
SOFTMETAL_API const char* softmetal_violation_rule(size_t index);
SOFTMETAL_API const char* softmetal_violation_text(size_t index);
SOFTMETAL_API void softmetal_clear_violations(void);
SOFTMETAL_API void softmetal_allow(const char* rule, int allowed);

// The rules themselves. Tag is "APPLE" or "OURS", verdict "raises" or "records".
SOFTMETAL_API size_t softmetal_rules(void);
SOFTMETAL_API const char* softmetal_rule_name(size_t index);
SOFTMETAL_API const char* softmetal_rule_tag(size_t index);
SOFTMETAL_API const char* softmetal_rule_verdict(size_t index);
SOFTMETAL_API const char* softmetal_rule_source(size_t index);

// Live objects of one class of the double (by its name), or of all. Singletons do not count.
SOFTMETAL_API size_t softmetal_live_objects(const char* class_name);
// Writes "MPSImage 2\nMPSState 1\n..." of all classes with live objects; returns the length.
SOFTMETAL_API size_t softmetal_describe_live_objects(char* text, size_t size);

// Faults, by name; zero or more than one may be on. Returns 0 for an unknown name. A window skips
// that many occasions and then strikes count times (0: for ever).
SOFTMETAL_API int softmetal_set_fault(const char* name, double value);
SOFTMETAL_API int softmetal_set_fault_window(const char* name, double value, unsigned skip,
                                             unsigned count);
SOFTMETAL_API int softmetal_clear_fault(const char* name);
SOFTMETAL_API void softmetal_clear_faults(void);
// Back to those of SOFTMETAL_FAULT, as when the process began.
SOFTMETAL_API void softmetal_reset_faults(void);
SOFTMETAL_API size_t softmetal_faults(void);
SOFTMETAL_API const char* softmetal_fault_name(size_t index);
SOFTMETAL_API const char* softmetal_fault_meaning(size_t index);
SOFTMETAL_API size_t softmetal_fault_strikes(const char* name);

// Counters since the last reset.
SOFTMETAL_API size_t softmetal_images_made(void);     // MPSImage and its subclasses, views included
SOFTMETAL_API size_t softmetal_slices_written(void);  // texture slices written by kernels
SOFTMETAL_API size_t softmetal_encodes(void);         // kernels encoded
SOFTMETAL_API size_t softmetal_commits(void);
SOFTMETAL_API size_t softmetal_probes(void);            // questions for devices
SOFTMETAL_API size_t softmetal_most_texel_bytes(void);  // of all textures alive at one time
SOFTMETAL_API void softmetal_reset_counters(void);

// As the environment variables; they count for devices and buffers that come later.
SOFTMETAL_API void softmetal_set_storage(const char* managed_or_shared);  // null: managed
SOFTMETAL_API void softmetal_set_devices(unsigned count);
SOFTMETAL_API void softmetal_set_working_set(uint64_t bytes);  // recommendedMaxWorkingSetSize
SOFTMETAL_API void softmetal_set_seed(uint64_t seed);
SOFTMETAL_API void softmetal_set_delay(unsigned microseconds);
SOFTMETAL_API void softmetal_set_block_seconds(double seconds);
SOFTMETAL_API void softmetal_set_on_violation(const char* raise_abort_or_record);

#ifdef __cplusplus
}
#endif
