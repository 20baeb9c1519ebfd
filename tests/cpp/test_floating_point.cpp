// Results do not depend on the floating-point environment of the caller, which is as before
// afterwards.
#include "core/floating_point.hpp"

#include <atomic>
#include <cfenv>
#include <cstring>
#include <string>
#include <thread>

#include "buffers.hpp"
#include "cpu/thread_pool.hpp"
#include "problem.hpp"

namespace mpsnn_loss::test {
namespace {

/// An environment that a caller may have set.
struct Setting {
  const char* name;
  void (*set)();
};

#if defined(__x86_64__)
template <std::uint32_t set, std::uint32_t cleared>
void change_control() {
  FloatingPointState state = FloatingPointState::read();
  state.control_and_flags = (state.control_and_flags | set) & ~cleared;
  state.write();
}
#elif defined(__aarch64__)
template <std::uint64_t set>
void change_control() {
  asm volatile("msr fpcr, %0" ::"r"(FloatingPointState::read().control | set));
}
#endif

constexpr Setting kSettings[] = {
    {"to nearest", [] { std::fesetround(FE_TONEAREST); }},
    {"downward", [] { std::fesetround(FE_DOWNWARD); }},
    {"upward", [] { std::fesetround(FE_UPWARD); }},
    {"toward zero", [] { std::fesetround(FE_TOWARDZERO); }},
    {"with flags raised", [] { std::feraiseexcept(FE_DIVBYZERO | FE_INEXACT); }},
#if defined(__x86_64__)
    {"flush to zero", change_control<0x8000, 0>},
    {"denormals are zero", change_control<0x0040, 0>},
    {"flush to zero, denormals are zero, downward", change_control<0xA040, 0>},
    {"every trap", change_control<0, 0x1FBF>},
    {"traps of invalid operands and divisions by zero", change_control<0, 0x02BF>},
    {"every trap, upward", change_control<0x4000, 0x1FBF>},
#elif defined(__aarch64__)
    {"flush to zero", change_control<1u << 24>},
    {"flush to zero, of half precision too, downward",
     change_control<1u << 24 | 1u << 19 | 2u << 22>},
    {"one NaN for all", change_control<1u << 25>},
    {"traps", change_control<0x9F00>},
#endif
};

/// Runs the body in an environment. Afterwards the control word and the flags must be those that
/// were set.
template <class Body>
bool is_unchanged_by(const Setting& setting, Body body) {
  const DefaultFloatingPoint scope;
  std::feclearexcept(FE_ALL_EXCEPT);
  setting.set();
  const FloatingPointState before = FloatingPointState::read();
  body();
  const FloatingPointState after = FloatingPointState::read();
  FloatingPointState::write_default();
  return std::memcmp(&before, &after, sizeof before) == 0;
}

/// Some of the values subnormal numbers of their format.
void add_subnormals(Array& array, Random& random) {
  const double smallest = array.format() == Format::float16   ? 0x1p-24
                          : array.format() == Format::float32 ? 0x1p-149
                                                              : 0x1p-1074;
  for (std::int64_t i = 0; i < array.count(); ++i) {
    if (random.one_in(5)) array.set(i, smallest * static_cast<double>(1 + random.below(900)));
  }
}

/// Calls visit(problem, inputs) for every loss, format and derivative, for one element, some, and
/// enough for all threads.
template <class Visit>
void for_each_problem(Visit visit) {
  Random random(1);
  int kind = 0;
  for (const LossInfo& loss : kLosses) {
    for (const Formats& formats : {kFormatMixes[0], kFormatMixes[1], kFormatMixes[2]}) {
      for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
        for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{3, 5, 1, 7}, Shape{2, 70, 81, 3}}) {
          ++kind;
          const Reduction& reduction = kAllReductions[kind % 7];
          Problem problem{descriptor_of(loss.type, reduction.type, reduction.across), wrt, formats,
                          shape};
          problem.descriptor.parameters.weight = 1.1;
          problem.source_gradient = 1.3;
          problem.weights = weights_shape(kind, shape, loss);
          Inputs in = make_inputs(problem, random);
          for (Array* array : {&in.predictions, &in.labels, &in.weights})
            add_subnormals(*array, random);
          visit(problem, in);
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("a caller's floating-point environment changes no bit and stops no call") {
  for_each_problem([](const Problem& problem, Inputs& in) {
    const ThreadCount one(1);
    const Outputs expected = run(problem, in, Work::loss_and_gradient);
    for (const std::int64_t threads : {1, 2}) {
      const ThreadCount scope(threads);
      for (const Setting& setting : kSettings) {
        Outputs given;
        const bool unchanged =
            is_unchanged_by(setting, [&] { given = run(problem, in, Work::loss_and_gradient); });
        INFO(problem.text());
        INFO(std::string(setting.name));
        REQUIRE(unchanged);
        REQUIRE(first_difference(given.loss, expected.loss) == -1);
        REQUIRE(first_difference(given.gradient, expected.gradient) == -1);
      }
    }
  });
}

TEST_CASE("a command buffer runs in the default environment, whoever commits it") {
  for (const Shape& shape : {Shape{1, 1, 1, 3}, Shape{4, 512, 512, 3}}) {
    for (const Setting& setting : kSettings) {
      const Images images(shape);
      const auto buffer = make_buffer();
      buffer->encode(images.call());
      const bool unchanged = is_unchanged_by(setting, [&] {
        buffer->commit();
        buffer->wait({});
      });
      INFO(std::string(setting.name));
      CHECK(unchanged);
      CHECK(images.result() == kAfter);
    }
  }
}

TEST_CASE("what a job leaves behind on a worker does not reach the next") {
  const ThreadCount scope(4);
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> wrong = 0;
  for (int trial = 0; trial < 200; ++trial) {
    cpu::parallel_for(64, 0, [&](std::int64_t, std::byte*) {
      if (std::this_thread::get_id() == caller) return std::this_thread::yield();
      const volatile double one = 1, three = 3;
      wrong += one / three != 1.0 / 3.0;
    });
    cpu::parallel_for(64, 0, [&](std::int64_t, std::byte*) {
      if (std::this_thread::get_id() != caller) std::fesetround(FE_UPWARD);
    });
  }
  CHECK(wrong == 0);
}

}  // namespace mpsnn_loss::test
