// The floating-point environment that results are computed in: rounding to nearest, subnormal
// numbers kept, nothing trapped. What a calling thread has set may be anything else, and must
// neither change a result nor stop a call; nor may a call change it, flags included.
#pragma once

#include <cstdint>
#include <utility>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <cfenv>
#endif

namespace mpsnn_loss {

#if defined(__x86_64__) || defined(__aarch64__)

/// The words of the processor that rule floating point. `control` says how it computes; the flags
/// are what happened so far. (The x87 unit of x86 has others, for long double: strided_array.cpp.)
struct FloatingPointState {
#if defined(__x86_64__)
  static constexpr std::uint32_t kFlags = 0x3F, kInexact = 0x20, kDefault = 0x1F80;
  std::uint32_t control_and_flags;

  static FloatingPointState read() {
    FloatingPointState state;
    asm volatile("stmxcsr %0" : "=m"(state.control_and_flags)::"memory");
    return state;
  }
  void write() const { asm volatile("ldmxcsr %0" ::"m"(control_and_flags) : "memory"); }
  /// To raise a flag costs more than a small call, so all of them are raised beforehand.
  bool is_default() const {
    return (control_and_flags & ~kFlags) == kDefault && (control_and_flags & kInexact) != 0;
  }
  static void write_default() { FloatingPointState{kDefault | kFlags}.write(); }
  /// After computing by default, which changes nothing but the flags.
  void restore() const {
    if (read().control_and_flags != control_and_flags) write();
  }
#else
  std::uint64_t control, flags;

  static FloatingPointState read() {
    FloatingPointState state;
    asm volatile("mrs %0, fpcr" : "=r"(state.control)::"memory");
    asm volatile("mrs %0, fpsr" : "=r"(state.flags)::"memory");
    return state;
  }
  bool is_default() const { return control == 0; }
  static void write_default() { asm volatile("msr fpcr, %0" ::"r"(std::uint64_t{0}) : "memory"); }
  void write() const {
    asm volatile("msr fpcr, %0" ::"r"(control) : "memory");
    asm volatile("msr fpsr, %0" ::"r"(flags) : "memory");
  }
  /// After computing by default, which changes nothing but the flags.
  void restore() const {
    if (read().flags != flags) asm volatile("msr fpsr, %0" ::"r"(flags) : "memory");
  }
#endif
};

#else

struct FloatingPointState {
  std::fenv_t environment;

  static FloatingPointState read() {
    FloatingPointState state;
    std::fegetenv(&state.environment);
    return state;
  }
  bool is_default() const { return false; }
  static void write_default() { std::fesetenv(FE_DFL_ENV); }
  void write() const { std::fesetenv(&environment); }
  void restore() const { write(); }
};

#endif

/// The default environment for a scope; afterwards that of the caller is back, flags included.
/// Arithmetic beside it in the same function may be moved across its ends, as compilers know of no
/// order between the two: use `in_default_floating_point`, or call what computes and is not
/// inlined.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() : before_(FloatingPointState::read()), was_default_(before_.is_default()) {
    if (!was_default_) FloatingPointState::write_default();
  }
  ~DefaultFloatingPoint() {
    // To read what was just written takes longer than to write again.
    was_default_ ? before_.restore() : before_.write();
  }
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;

 private:
  const FloatingPointState before_;
  const bool was_default_;
};

template <class F>
[[gnu::noinline]] decltype(auto) call_apart(F& body) {
  return body();
}

/// Calls `body` in the default environment and returns what it returns. The body is a function of
/// its own, so that all its arithmetic is inside.
template <class F>
decltype(auto) in_default_floating_point(F body) {
  const DefaultFloatingPoint scope;
  return call_apart(body);
}

}  // namespace mpsnn_loss
