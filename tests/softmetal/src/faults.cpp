#include "faults.hpp"

#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "settings.hpp"
#include "softmetal.h"

namespace softmetal {
namespace {

struct Entry {
  const char* name;
  const char* meaning;
};

constexpr std::size_t fault_count = static_cast<std::size_t>(Fault::count);

// In the order of the enumeration.
constexpr std::array<Entry, fault_count> entries{{
    {"no_device", "there is no Metal device"},
    {"default_device_is_nil",
     "MTLCreateSystemDefaultDevice returns nil, whatever MTLCopyAllDevices "
     "lists"},
    {"device_list_is_empty",
     "MTLCopyAllDevices lists nothing, whatever MTLCreateSystemDefaultDevice "
     "returns"},
    {"probe_raises", "MTLCreateSystemDefaultDevice raises"},
    {"device_unsupported", "MPSSupportsMTLDevice says NO and kernels cannot be made"},
    {"queue_is_nil", "newCommandQueue returns nil"},
    {"command_buffer_is_nil", "commandBuffer returns nil"},
    {"kernel_is_nil", "the initialiser of a kernel returns nil"},
    {"descriptor_is_nil", "cnnLossDescriptorWithType:reductionType: returns nil"},
    {"image_is_nil", "initWithDevice:imageDescriptor: returns nil"},
    {"texture_is_nil", "the storage of an image cannot be allocated"},
    {"result_state_is_nil", "resultStateBatch... of the forward loss returns nil"},
    {"copy_is_nil", "copyWithZone:device: returns nil"},
    {"archive_is_nil", "archivedDataWithRootObject: returns nil and an error"},
    {"unarchive_is_nil", "unarchivedObjectOfClass: returns nil without an error"},
    {"unarchive_raises", "unarchivedObjectOfClass: raises"},
    {"encode_raises", "every encode of a kernel raises NSInternalInconsistencyException"},
    {"encode_pause", "every encode lasts so many microseconds longer"},
    {"log_and_do_nothing", "a broken rule is only printed and recorded, the call does nothing"},
    {"forget_read_count_decrement", "encodes do not lower the read counts of what they read"},
    {"copy_forgets_properties", "a copied kernel has the default dynamic properties"},
    {"archive_forgets_properties", "an unarchived kernel has the default dynamic properties"},
    {"temporary_states_are_temporary", "temporary result states have resources and read counts"},
    {"results_follow_source_format",
     "results of returning encodes have the format of the source, "
     "not float16"},
    {"run_handlers_of_dropped", "a buffer dropped uncommitted still runs its completed handlers"},
    {"buffer_error", "command buffers end in this MTLCommandBufferError"},
    {"buffer_error_without_nserror", "command buffers end in error, and error is nil"},
    {"completion_late", "command buffers take so many milliseconds longer"},
    {"other_defaults", "inherited properties without a documented default have others"},
    {"lower_read_count_each_use",
     "encodes lower a read count for each use of an image, not once for "
     "each image"},
    {"continue_during_encode",
     "every encode on an MPSCommandBuffer commits it and goes on with "
     "another root"},
    {"never_completes", "command buffers do not end as long as this is on"},
}};

struct State {
  bool on = false;
  double value = 0;
  unsigned skip = 0;
  unsigned left = 0;  // 0: for ever
  std::size_t strikes = 0;
};

struct Faults {
  std::mutex mutex;
  std::array<State, fault_count> states;
};

std::size_t index_of(const std::string& name) {
  for (std::size_t i = 0; i < fault_count; ++i) {
    if (name == entries[i].name) return i;
  }
  return fault_count;
}

/// "name[=value][@skip][#count]"
void set_from_text(Faults& faults, const std::string& text) {
  const auto after = [&](char mark) {
    const std::size_t at = text.find(mark);
    return at == std::string::npos ? 0.0 : std::strtod(text.c_str() + at + 1, nullptr);
  };
  const std::size_t i = index_of(text.substr(0, text.find_first_of("=@#")));
  if (i == fault_count) {
    std::fprintf(stderr, "softmetal: unknown fault in SOFTMETAL_FAULT: %s\n", text.c_str());
    std::abort();
  }
  const double value = text.find('=') == std::string::npos ? 1 : after('=');
  faults.states[i] = {true, value, static_cast<unsigned>(after('@')),
                      static_cast<unsigned>(after('#')), 0};
}

void set_from_environment(Faults& faults) {
  for (const std::string& text : list_setting("SOFTMETAL_FAULT")) set_from_text(faults, text);
}

Faults& faults() {
  static auto* const it = [] {
    auto* made = new Faults;
    set_from_environment(*made);
    return made;
  }();
  return *it;
}

}  // namespace

std::optional<double> strikes(Fault fault) {
  Faults& f = faults();
  std::lock_guard lock(f.mutex);
  State& state = f.states[static_cast<std::size_t>(fault)];
  if (!state.on) return std::nullopt;
  if (state.skip > 0) {
    --state.skip;
    return std::nullopt;
  }
  if (state.left > 0 && --state.left == 0) state.on = false;
  ++state.strikes;
  return state.value;
}

bool is_on(Fault fault) {
  const std::lock_guard lock(faults().mutex);
  return faults().states[static_cast<std::size_t>(fault)].on;
}

}  // namespace softmetal

using namespace softmetal;

int softmetal_set_fault(const char* name, double value) {
  return softmetal_set_fault_window(name, value, 0, 0);
}

int softmetal_set_fault_window(const char* name, double value, unsigned skip, unsigned count) {
  const std::size_t i = index_of(name);
  if (i == fault_count) return 0;
  std::lock_guard lock(faults().mutex);
  faults().states[i] = {true, value, skip, count, 0};
  return 1;
}

int softmetal_clear_fault(const char* name) {
  const std::size_t i = index_of(name);
  if (i == fault_count) return 0;
  std::lock_guard lock(faults().mutex);
  faults().states[i].on = false;
  return 1;
}

void softmetal_clear_faults() {
  std::lock_guard lock(faults().mutex);
  faults().states.fill({});
}

void softmetal_reset_faults() {
  std::lock_guard lock(faults().mutex);
  faults().states.fill({});
  set_from_environment(faults());
}

size_t softmetal_faults() { return fault_count; }

const char* softmetal_fault_name(size_t index) {
  return index < fault_count ? entries[index].name : nullptr;
}

const char* softmetal_fault_meaning(size_t index) {
  return index < fault_count ? entries[index].meaning : nullptr;
}

size_t softmetal_fault_strikes(const char* name) {
  const std::size_t i = index_of(name);
  if (i == fault_count) return 0;
  std::lock_guard lock(faults().mutex);
  return faults().states[i].strikes;
}
