// One channel: bytes to number and back. The half precision conversions are written out because
// clang before 15 has none for x86-64.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "texels.hpp"

namespace softmetal {
namespace {

template <class T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void write(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

double from_half(std::uint16_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  if (exponent == 31) return fraction ? std::nan("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

std::uint16_t to_half(double value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7e00;
  const double size = std::fabs(value);
  if (size >= 65520) return sign | 0x7c00;  // half way to the next power rounds up to infinity
  int exponent = 0;
  std::frexp(size, &exponent);
  // The grid of a half near `size`: 11 significant bits, but never finer than 2^-24.
  const int grid = std::max(exponent - 11, -24);
  const double steps = std::nearbyint(std::ldexp(size, -grid));
  const double rounded = std::ldexp(steps, grid);
  if (rounded < 0x1p-14) return sign | static_cast<std::uint16_t>(std::ldexp(rounded, 24));
  std::frexp(rounded, &exponent);
  const int fraction = static_cast<int>(std::ldexp(rounded, 11 - exponent)) - 1024;
  return static_cast<std::uint16_t>(sign | ((exponent + 14) << 10) | fraction);
}

template <class T>
T to_unorm(double value) {
  constexpr double top = static_cast<T>(~T{0});
  return static_cast<T>(std::nearbyint(std::clamp(std::isnan(value) ? 0 : value, 0.0, 1.0) * top));
}

}  // namespace

std::size_t size_of(Channel channel) {
  switch (channel) {
    case Channel::unorm8: return 1;
    case Channel::unorm16:
    case Channel::float16: return 2;
    case Channel::float32: return 4;
  }
  return 0;
}

double decode(Channel channel, const std::byte* from) {
  switch (channel) {
    case Channel::unorm8: return read<std::uint8_t>(from) / 255.0;
    case Channel::unorm16: return read<std::uint16_t>(from) / 65535.0;
    case Channel::float16: return from_half(read<std::uint16_t>(from));
    case Channel::float32: return read<float>(from);
  }
  return 0;
}

void encode(Channel channel, double value, std::byte* to) {
  switch (channel) {
    case Channel::unorm8: return write(to, to_unorm<std::uint8_t>(value));
    case Channel::unorm16: return write(to, to_unorm<std::uint16_t>(value));
    case Channel::float16: return write(to, to_half(value));
    case Channel::float32: return write(to, static_cast<float>(value));
  }
}

void poison(Channel channel, std::vector<std::byte>& bytes) {
  std::byte one[4] = {};
  const bool has_nan = channel == Channel::float16 || channel == Channel::float32;
  encode(channel, has_nan ? std::nan("") : 1.0, one);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = one[i % size_of(channel)];
}

}  // namespace softmetal
