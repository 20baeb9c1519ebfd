// The errors of the package. The bindings map each to one Python exception.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

namespace mpsnn_loss {

/// A value, shape, count or name that the call cannot accept (ValueError).
struct ValueError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// An argument of the wrong type or storage format (TypeError).
struct TypeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// A call that is right in itself but not now, or not on this device (RuntimeError).
struct StateError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Memory of a device that cannot be had (MemoryError).
struct MemoryError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Work that was committed and failed on its device (mpsnn_loss.DeviceError).
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Made ahead, as it is needed where no memory is left.
inline const std::exception_ptr kNoMemoryForError =
    std::make_exception_ptr(DeviceError("the work failed, and no memory was left to say why"));

/// A DeviceError to keep.
inline std::exception_ptr device_failure(const char* words, const char* more = "") noexcept {
  try {
    return std::make_exception_ptr(DeviceError(std::string(words) + more));
  } catch (const std::bad_alloc&) {
    return kNoMemoryForError;
  }
}

/// A wait that ended before the work did (TimeoutError).
struct TimeoutError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws what `make` returns. Apart, so that a check which holds does not pay for the words of the
/// error.
template <class Make>
[[noreturn, gnu::cold, gnu::noinline]] void throw_made(Make make) {
  throw make();
}

/// The one form of a refusal: "<argument> must <expectation>, got <what came>".
inline std::string refusal(const std::string& argument, const std::string& expectation,
                           const std::string& given) {
  return argument + " must " + expectation + ", got " + given;
}

}  // namespace mpsnn_loss
