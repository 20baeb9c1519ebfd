// The errors of the package. The bindings map each to one Python exception.
#pragma once

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

/// Work that was committed and failed on its device (mpsnn_loss.DeviceError).
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A wait that ended before the work did (TimeoutError).
struct TimeoutError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The one form of a refusal: "<argument> must <expectation>, got <what came>".
inline std::string refusal(const std::string& argument, const std::string& expectation,
                           const std::string& given) {
  return argument + " must " + expectation + ", got " + given;
}

}  // namespace mpsnn_loss
