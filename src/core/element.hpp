// One element of host memory in a storage format, as float64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/half.hpp"
#include "core/shape.hpp"

namespace mpsnn_loss {

inline double read_value(const std::byte* at, Format format) {
  switch (format) {
    case Format::float16: {
      std::uint16_t half = 0;
      std::memcpy(&half, at, sizeof half);
      return static_cast<double>(half_to_float(half));
    }
    case Format::float32: {
      float value = 0;
      std::memcpy(&value, at, sizeof value);
      return static_cast<double>(value);
    }
    case Format::float64: {
      double value = 0;
      std::memcpy(&value, at, sizeof value);
      return value;
    }
  }
  return 0;
}

/// Rounds to the format.
inline void write_value(std::byte* at, Format format, double value) {
  const auto single = static_cast<float>(value);
  switch (format) {
    case Format::float16: {
      const std::uint16_t half = float_to_half(single);
      std::memcpy(at, &half, sizeof half);
      return;
    }
    case Format::float32: std::memcpy(at, &single, sizeof single); return;
    case Format::float64: std::memcpy(at, &value, sizeof value); return;
  }
}

}  // namespace mpsnn_loss
