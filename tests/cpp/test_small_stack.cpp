// Any call is content with a small stack: threads of other programs have little, and musl's all.
#include <pthread.h>

#include <cstddef>
#include <exception>
#include <vector>

#include "problem.hpp"

namespace mpsnn_loss::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsInstrumented = true;
#elif defined(__has_feature)
constexpr bool kIsInstrumented =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kIsInstrumented = false;
#endif

/// How many bytes of stack the body takes, run on a thread that has 64 KiB.
template <class Body>
std::size_t stack_used_by(Body& body) {
  constexpr std::size_t kBytes = 64 << 10, kAlignment = 4096;
  constexpr std::byte kPaint{0xA5};
  std::vector<std::byte> memory(kBytes + kAlignment, kPaint);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  std::byte* const lowest = memory.data() + (kAlignment - address % kAlignment) % kAlignment;
  pthread_attr_t attributes;
  REQUIRE(pthread_attr_init(&attributes) == 0);
  REQUIRE(pthread_attr_setstack(&attributes, lowest, kBytes) == 0);
  const auto run = [](void* context) -> void* {
    (*static_cast<Body*>(context))();
    return nullptr;
  };
  pthread_t thread;
  REQUIRE(pthread_create(&thread, &attributes, run, &body) == 0);
  REQUIRE(pthread_join(thread, nullptr) == 0);
  pthread_attr_destroy(&attributes);
  std::size_t untouched = 0;
  while (untouched < kBytes && lowest[untouched] == kPaint) ++untouched;
  return kBytes - untouched;
}

/// Values whose losses leave the range of float32 on the way, so that float64 has to look again.
void add_huge_values(Inputs& in, Random& random) {
  for (Array* array : {&in.predictions, &in.labels}) {
    for (std::int64_t i = 0; i < array->count(); ++i) {
      if (random.one_in(9)) array->set(i, random.one_of(std::vector<double>{3e38, -3e38, 1e-40}));
    }
  }
}

}  // namespace

TEST_CASE("no call takes more than 32 KiB of stack") {
  if (kIsInstrumented) return;  // instrumented frames are larger
  const ThreadCount one(1);
  Random random(1);
  std::size_t most = 0;
  for (const LossInfo& loss : kLosses) {
    for (const Formats& formats : kFormatMixes) {
      for (const Wrt wrt : {Wrt::predictions, Wrt::labels}) {
        for (const Shape& shape : {Shape{3, 5, 7, 11}, Shape{4, 3, 1, 40}, Shape{1, 1, 2, 1500}}) {
          for (const Reduction& reduction : kAllReductions) {
            const int kind = static_cast<int>(random.below(5));
            Problem problem{descriptor_of(loss.type, reduction.type, reduction.across), wrt,
                            formats, shape};
            problem.weights = weights_shape(kind, shape, loss);
            if (!problem.descriptor.reduces()) problem.gradients = shape;
            Inputs in = make_inputs(problem, random);
            if (random.one_in(2)) add_special_values(in, random);
            if (random.one_in(2)) add_huge_values(in, random);
            if (loss.takes_class_indices && wrt == Wrt::predictions && random.one_in(2)) {
              for (std::int64_t i = 0; i < shape.images * shape.pixels(); ++i)
                in.classes.push_back(random.below(shape.channels));
            }
            auto body = [&] { run(problem, in, Work::loss_and_gradient); };
            const std::size_t used = stack_used_by(body);
            INFO(problem.text());
            CHECK(used <= 32 << 10);
            most = std::max(most, used);
          }
        }
      }
    }
  }
  MESSAGE("at most " << most << " bytes of stack");
}

}  // namespace mpsnn_loss::test
