// What several test files need: repeatable numbers, refusals, arrays between guards.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/half.hpp"
#include "core/shape.hpp"
#include "devices.hpp"
#include "objects/device.hpp"
#include "objects/kernel.hpp"

namespace mpsnn_loss::test {

/// What a kernel says of a computation at this moment.
inline Request request_of(const Kernel& kernel) {
  Request request;
  kernel.fill(request);
  return request;
}

/// Numbers that are the same in every run (splitmix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform(double low, double high) {
    return low + (high - low) * (static_cast<double>(next() >> 11) * 0x1p-53);
  }
  std::int64_t below(std::int64_t end) {
    return static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(end));
  }
  bool one_in(std::int64_t count) { return below(count) == 0; }
  template <class List>
  auto one_of(const List& list) {
    return list[static_cast<std::size_t>(below(static_cast<std::int64_t>(std::size(list))))];
  }

 private:
  std::uint64_t state_;
};

/// The words of the Error that `run` throws, or what happened instead.
template <class Error, class F>
std::string refusal_of(F run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("(error of another type) ") + error.what();
  }
  return "(no error)";
}

/// `run` throws an Error whose words begin with `argument`.
template <class Error, class F>
void check_refused(const std::string& argument, F run) {
  const std::string words = refusal_of<Error>(run);
  CAPTURE(argument);
  CAPTURE(words);
  CHECK(words.starts_with(argument));
}

inline std::shared_ptr<State> make_state(const std::optional<LossParameters>& values) {
  auto state = std::make_shared<State>(cpu_device());
  state->values = values;
  return state;
}

/// Sets the number of threads for a scope.
class ThreadCount {
 public:
  explicit ThreadCount(std::int64_t count) : before_(num_threads()) { set_num_threads(count); }
  ~ThreadCount() { set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  const std::int64_t before_;
};

/// Elements that start `offset` elements after an aligned address and end with their allocation, so
/// that AddressSanitizer sees one byte too many; or that stand between guards, for what is written.
class Array {
 public:
  static constexpr std::int64_t kGuard = 72;  // elements; more than any vector holds

  Array() = default;
  Array(Format format, std::int64_t count, std::int64_t offset, bool guarded = false)
      : format_(format), count_(count), first_(offset + (guarded ? kGuard : 0)) {
    const std::int64_t bytes = (first_ + count + (guarded ? kGuard : 0)) * size();
    // Not even an empty array stands nowhere.
    memory_.assign(static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1)), kPattern);
  }

  Format format() const { return format_; }
  std::int64_t count() const { return count_; }
  std::byte* data() { return memory_.data() + first_ * size(); }
  const std::byte* data() const { return memory_.data() + first_ * size(); }

  double get(std::int64_t i) const {
    switch (format_) {
      case Format::float16: return static_cast<double>(half_to_float(read<std::uint16_t>(i)));
      case Format::float32: return static_cast<double>(read<float>(i));
      case Format::float64: return read<double>(i);
      case Format::bfloat16: return static_cast<double>(bfloat16_to_float(read<std::uint16_t>(i)));
    }
    return 0;
  }
  void set(std::int64_t i, double value) {
    switch (format_) {
      case Format::float16: return write(i, float_to_half(static_cast<float>(value)));
      case Format::float32: return write(i, static_cast<float>(value));
      case Format::float64: return write(i, value);
      case Format::bfloat16: return write(i, float_to_bfloat16(static_cast<float>(value)));
    }
  }

  /// Elements [first, first + count) in memory of their own.
  Array slice(std::int64_t first, std::int64_t count, std::int64_t offset) const {
    Array part(format_, count, offset);
    if (count > 0) {
      std::memcpy(part.data(), data() + first * size(), static_cast<std::size_t>(count * size()));
    }
    return part;
  }
  /// Nothing was written beside the elements.
  bool guards_intact() const {
    const std::byte *const begin = memory_.data(), *const end = begin + memory_.size();
    const auto untouched = [](const std::byte* from, const std::byte* to) {
      while (from != to && *from == kPattern) ++from;
      return from == to;
    };
    return untouched(begin, data()) && untouched(data() + count_ * size(), end);
  }

 private:
  static constexpr std::byte kPattern{0xA5};

  std::int64_t size() const { return info(format_).size; }
  template <class T>
  T read(std::int64_t i) const {
    T value;
    std::memcpy(&value, data() + i * size(), sizeof value);
    return value;
  }
  template <class T>
  void write(std::int64_t i, T value) {
    std::memcpy(data() + i * size(), &value, sizeof value);
  }

  Format format_ = Format::float32;
  std::int64_t count_ = 0, first_ = 0;
  std::vector<std::byte> memory_;
};

/// The first of `count` elements whose bits differ (payloads of NaN excepted), or -1.
inline std::int64_t first_difference(const Array& a, std::int64_t a_first, const Array& b,
                                     std::int64_t b_first, std::int64_t count) {
  const std::int64_t size = info(a.format()).size;
  if (a.format() != b.format() || a_first + count > a.count() || b_first + count > b.count()) {
    return 0;
  }
  const auto bytes = static_cast<std::size_t>(count * size);
  if (bytes == 0 || std::memcmp(a.data() + a_first * size, b.data() + b_first * size, bytes) == 0) {
    return -1;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const std::byte* const x = a.data() + (a_first + i) * size;
    const std::byte* const y = b.data() + (b_first + i) * size;
    if (std::memcmp(x, y, static_cast<std::size_t>(size)) == 0) continue;
    const double p = a.get(a_first + i), q = b.get(b_first + i);
    if (p == p || q == q) return i;
  }
  return -1;
}
inline std::int64_t first_difference(const Array& a, const Array& b) {
  return a.count() == b.count() ? first_difference(a, 0, b, 0, a.count()) : 0;
}

}  // namespace mpsnn_loss::test
