// Faults that can be switched on one by one, and behaviours that documents leave open.
#pragma once
#include <optional>

namespace softmetal {

enum class Fault {
  no_device,
  default_device_is_nil,
  device_list_is_empty,
  probe_raises,
  device_unsupported,
  queue_is_nil,
  command_buffer_is_nil,
  kernel_is_nil,
  descriptor_is_nil,
  image_is_nil,
  texture_is_nil,
  result_state_is_nil,
  copy_is_nil,
  archive_is_nil,
  unarchive_is_nil,
  unarchive_raises,
  encode_raises,
  encode_pause,
  log_and_do_nothing,
  forget_read_count_decrement,
  copy_forgets_properties,
  archive_forgets_properties,
  temporary_states_are_temporary,
  results_follow_source_format,
  run_handlers_of_dropped,
  buffer_error,
  buffer_error_without_nserror,
  completion_late,
  other_defaults,
  lower_read_count_each_use,
  continue_during_encode,
  never_completes,
  count
};

/// The value of a fault that strikes on this occasion, or nothing.
std::optional<double> strikes(Fault fault);
/// Whether a fault is on; this is no occasion.
bool is_on(Fault fault);

}  // namespace softmetal
