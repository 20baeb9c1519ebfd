// One element of host memory in a storage format, as float64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/half.hpp"
#include "core/shape.hpp"

namespace mpsnn_loss {

template <class T>
T read_as(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline double read_value(const std::byte* at, Format format) {
  switch (format) {
    case Format::float16: return static_cast<double>(to_float(read_as<Float16>(at)));
    case Format::float32: return static_cast<double>(read_as<float>(at));
    case Format::float64: return read_as<double>(at);
    case Format::bfloat16: return static_cast<double>(to_float(read_as<BFloat16>(at)));
  }
  return 0;
}

/// Rounds once, to the format.
inline void write_value(std::byte* at, Format format, double value) {
  const auto write = [at](auto rounded) { std::memcpy(at, &rounded, sizeof rounded); };
  switch (format) {
    case Format::float16: return write(narrowed<Float16>(value));
    case Format::float32: return write(static_cast<float>(value));
    case Format::float64: return write(value);
    case Format::bfloat16: return write(narrowed<BFloat16>(value));
  }
}

}  // namespace mpsnn_loss
