// Allocations that fail, at every point of a call of each kind: the call throws or its buffer
// fails, and everything can be used afterwards.
#include <atomic>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "buffers.hpp"
#include "failing_memory.hpp"
#include "objects/archive.hpp"
#include "objects/completion.hpp"
#include "objects/image_batch.hpp"

namespace mpsnn_loss::test {
namespace {

const Shape kSmall{2, 1, 1, 3}, kLarge{1, 1, 2, kLargeWork};

/// Runs `call` with every allocation of it failing in turn, until it needs no more. `check` runs
/// after each.
void fail_everywhere(
    const std::function<void()>& call, const std::function<void()>& check = [] {}) {
  for (const auto how : {FailingMemory::How::once, FailingMemory::How::from_then_on}) {
    for (long allocation = 0;; ++allocation) {
      REQUIRE(allocation < 10000);
      bool has_failed = false, is_other_error = false;
      {
        const FailingMemory failing(allocation, how);
        try {
          call();
        } catch (const std::bad_alloc&) {
        } catch (const DeviceError&) {
        } catch (...) {
          is_other_error = true;
        }
        has_failed = failing.has_failed();
      }
      CAPTURE(allocation);
      REQUIRE_FALSE(is_other_error);
      check();
      if (!has_failed) break;
    }
  }
}

/// The queue runs another buffer, and its images are readable.
void check_queue(Queue& queue) {
  const Images images;
  const Buffer buffer = make_buffer(queue);
  buffer->encode(images.call());
  bool handled = false;
  buffer->on_completed([&] { handled = true; });
  buffer->commit();
  REQUIRE_NOTHROW(buffer->wait(kLong));
  REQUIRE(images.result() == kAfter);
  REQUIRE(handled);
}

}  // namespace

TEST_CASE("objects are made and copied, or std::bad_alloc comes out") {
  const auto device = cpu_device();
  const Images images;
  const auto archived = archive(*images.kernel);
  const auto queue = make_queue();
  fail_everywhere([&] { device->make_images({kSmall, Format::float32}); });
  fail_everywhere([&] { device->make_kernel(KernelKind::loss_gradient, Images::descriptor()); });
  fail_everywhere([&] { images.kernel->copy(device); });
  fail_everywhere([&] { archive(*images.kernel); });
  fail_everywhere([&] { unarchive(archived, KernelKind::loss_gradient, device); });
  fail_everywhere([&] { gather_images("images", {{images.labels, 1}, {images.labels, 0}}); });
  fail_everywhere([&] { images.labels->set_label(0, "a label that needs an allocation"); });
  fail_everywhere([&] { make_queue(); });
  fail_everywhere([&] { make_buffer(*queue); }, [&] { check_queue(*queue); });
}

TEST_CASE("an encode that fails leaves no trace") {
  const Images images, parts({3, 1, 1, 3});
  Images views;
  views.gradient = gather_images("images", {{parts.gradient, 2}, {parts.gradient, 0}});
  for (const Images* const each : {&images, static_cast<const Images*>(&views)}) {
    const auto call = each->call();
    const auto queue = make_queue();
    const Buffer written = make_buffer(*queue);  // from now on there are values
    written->encode(call);
    written->commit();
    fail_everywhere(
        [&] {
          const Buffer buffer = make_buffer(*queue);
          try {
            buffer->encode(call);
          } catch (const std::bad_alloc&) {
            each->gradient->check_readable();
            buffer->encode_work([] {});
            throw;
          }
          buffer->commit();
          buffer->wait(kLong);
        },
        [&] {
          each->gradient->check_usable();
          check_queue(*queue);
        });
  }
}

TEST_CASE("a commit that fails may be tried again, and committed work ends, whatever is missing") {
  for (const Shape& shape : {kSmall, kLarge}) {
    for (const std::int64_t threads : {1, 2}) {
      for (const bool fails_itself : {false, true}) {
        const ThreadCount count(threads);
        const Images images(shape);
        const auto call = images.call();
        const auto queue = make_queue();
        Buffer buffer;
        std::atomic<int> handled = 0;
        const auto prepare = [&] {
          buffer = make_buffer(*queue);
          if (fails_itself) encode_failure(buffer);
          buffer->encode(call);
          handled = 0;
          buffer->on_completed([&] { ++handled; });
        };
        prepare();
        fail_everywhere(
            [&] {
              buffer->commit();
              buffer->wait(kLong);
            },
            [&] {
              if (buffer->status() < Status::committed) buffer->commit();
              REQUIRE(buffer->finished_within(kLong));
              REQUIRE(handled == 1);
              if (fails_itself) REQUIRE(buffer->status() == Status::error);
              check_queue(*queue);
              prepare();
            });
      }
    }
  }
}

TEST_CASE("handlers run and discarded buffers go without memory") {
  const auto queue = make_queue();
  fail_everywhere(
      [&] {
        const Buffer first = make_buffer(*queue), gate = make_buffer(*queue),
                     last = make_buffer(*queue);
        first->on_completed([&] {
          const Buffer inner = make_buffer(*queue);
          inner->on_completed([] {});
          inner->commit();
        });
        gate->enqueue();
        last->on_completed([] {});
        last->commit();
        first->commit();
        gate->discard();
        last->wait(kLong);
      },
      [&] {
        REQUIRE(LastWork().left_after(kLong) == 0);
        check_queue(*queue);
      });
}

TEST_CASE("a buffer whose input was never written fails without memory") {
  const auto queue = make_queue();
  const Images images;
  Buffer reader, writer;
  const auto prepare = [&] {
    writer = make_buffer(*queue);
    reader = make_buffer(*queue);
    Images chained;
    writer->encode(images.call());
    chained.predictions = images.gradient;
    reader->encode(chained.call());
  };
  prepare();
  fail_everywhere([&] { reader->commit(); },
                  [&] {
                    if (reader->status() < Status::committed) reader->commit();
                    REQUIRE(reader->finished_within(kLong));
                    REQUIRE(reader->status() == Status::error);
                    prepare();
                  });
}

TEST_CASE("a call on host memory throws and may be tried again") {
  for (const std::int64_t threads : {1, 2}) {
    const ThreadCount count(threads);
    const Images images(kLarge);
    Encode call = images.call();
    const Computation computation = to_computation(call);
    Engine& engine = cpu_device()->engine();
    fail_everywhere([&] { engine.compute(computation, nullptr); });
    engine.compute(computation, nullptr);
    CHECK(images.result() == kAfter);
  }
}

}  // namespace mpsnn_loss::test
