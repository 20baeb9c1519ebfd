// Queues and command buffers: order, errors, handlers, and what images learn of them.
#include "cpu/queue.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/gathered_images.hpp"
#include "core/loss_call.hpp"
#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

using Status = CommandBufferStatus;
using Buffer = std::shared_ptr<cpu::CpuCommandBuffer>;

constexpr double kLong = 30;  // seconds; a wait that takes so long has failed

std::shared_ptr<Queue> make_queue() { return cpu_device()->make_queue("queue"); }

Buffer make_buffer(Queue& queue) {
  return std::dynamic_pointer_cast<cpu::CpuCommandBuffer>(queue.make_command_buffer("buffer"));
}
Buffer make_buffer() { return make_buffer(*make_queue()); }

/// Predictions 2, labels 0.5 and a gradient to be written.
struct Images {
  explicit Images(const Shape& shape = {2, 1, 1, 3}) {
    const BatchDescriptor d{shape, Format::float32};
    const auto filled = [&](float value) {
      auto images = cpu_device()->make_images(d);
      const std::vector<float> values(static_cast<std::size_t>(shape.elements()), value);
      images->upload(0, shape.images, reinterpret_cast<const std::byte*>(values.data()));
      return images;
    };
    predictions = filled(2);
    labels = filled(0.5);
    gradient = filled(-1);
  }

  LossCall call() const {
    LossRequest r;
    r.work = Work::gradient;
    r.descriptor.loss_type = LossType::mean_squared_error;
    r.predictions = make_operand("predictions", predictions);
    r.labels = make_operand("labels", labels);
    r.gradient = make_operand("gradient", gradient);
    return LossCall(std::move(r));
  }
  float result(std::int64_t image = 0) const {
    float value;
    std::memcpy(&value, gradient->image_data(image), sizeof value);
    return value;
  }

  std::shared_ptr<ImageBatch> predictions, labels, gradient;
};

constexpr float kBefore = -1, kAfter = 3;  // what result() is before and after the call

void encode_failure(const Buffer& buffer, const std::string& words = "out of luck") {
  buffer->encode_work([words] { throw std::runtime_error(words); });
}

/// The buffer's work appends `name` to `log`.
void encode_log(const Buffer& buffer, std::vector<int>& log, int name) {
  buffer->encode_work([&log, name] { log.push_back(name); });
}

}  // namespace

TEST_CASE("a buffer goes from not enqueued to enqueued, committed and completed") {
  const auto queue = make_queue();
  const Buffer first = make_buffer(*queue), second = make_buffer(*queue);
  CHECK(second->status() == Status::not_enqueued);
  CHECK(second->label() == "buffer");
  CHECK(queue->label() == "queue");
  first->enqueue();
  CHECK(first->status() == Status::enqueued);
  CHECK_NOTHROW(first->enqueue());  // twice changes nothing
  second->commit();
  CHECK(second->status() == Status::committed);  // behind the first
  CHECK_FALSE(second->finished_within(0.001));
  check_refused<TimeoutError>("command_buffer", [&] { second->wait(0.001); });
  first->commit();
  for (const Buffer& buffer : {first, second}) {
    CHECK(buffer->finished_within(kLong));
    CHECK_NOTHROW(buffer->wait({}));
    CHECK_NOTHROW(buffer->wait(0.0));
    CHECK(buffer->status() == Status::completed);
    CHECK(buffer->error() == nullptr);
  }
}

TEST_CASE("what comes too late or too early is refused") {
  const Images images;
  const Buffer buffer = make_buffer();
  check_refused<StateError>("command_buffer", [&] { buffer->wait(0.0); });
  check_refused<StateError>("command_buffer", [&] { buffer->finished_within(0.0); });
  buffer->enqueue();
  check_refused<StateError>("command_buffer", [&] { buffer->wait(0.0); });
  buffer->encode(images.call());  // enqueued is not too late
  buffer->commit();
  const Buffer discarded = make_buffer();
  discarded->discard();
  for (const Buffer& closed : {buffer, discarded}) {
    check_refused<StateError>("command_buffer", [&] { closed->encode(images.call()); });
    check_refused<StateError>("command_buffer", [&] { closed->check_encodable(); });
    check_refused<StateError>("command_buffer", [&] { closed->enqueue(); });
    check_refused<StateError>("command_buffer", [&] { closed->commit(); });
    check_refused<StateError>("command_buffer", [&] { closed->on_completed([] {}); });
    CHECK_NOTHROW(closed->discard());
  }
  CHECK(buffer->status() == Status::completed);
  check_refused<StateError>("command_buffer", [&] { discarded->wait(0.0); });
}

TEST_CASE("a wait of many years does not time out at once") {
  const auto queue = make_queue();
  const Buffer first = make_buffer(*queue), second = make_buffer(*queue);
  first->enqueue();
  second->commit();
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    first->commit();
  });
  CHECK_NOTHROW(second->wait(1e12));
  later.join();
  CHECK(second->status() == Status::completed);
}

TEST_CASE("buffers run in the order in which their places were taken") {
  Random random(1);
  for (int trial = 0; trial < 300; ++trial) {
    constexpr std::size_t kCount = 6;
    const auto queue = make_queue();
    std::vector<Buffer> buffers;
    std::vector<int> log, expected, commits(kCount);
    std::iota(commits.begin(), commits.end(), 0);
    std::vector<bool> placed(kCount), dropped(kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      buffers.push_back(make_buffer(*queue));
      encode_log(buffers.back(), log, static_cast<int>(i));
    }
    for (int i = 0; i < 4; ++i) {
      const auto name = static_cast<std::size_t>(random.below(kCount));
      buffers[name]->enqueue();
      if (!placed[name]) expected.push_back(static_cast<int>(name));
      placed[name] = true;
    }
    for (std::size_t i = kCount; i > 1; --i) {
      std::swap(commits[i - 1],
                commits[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
    }
    for (const int name : commits) {
      const auto at = static_cast<std::size_t>(name);
      if (random.one_in(4)) {
        // Either way of giving a place up.
        if (random.one_in(2)) buffers[at]->discard();
        buffers[at].reset();
        std::erase(expected, name);
        continue;
      }
      if (!placed[at]) expected.push_back(name);
      buffers[at]->commit();
      // What has run is the beginning of the order, and no more than was committed.
      REQUIRE(log.size() <= expected.size());
      CHECK(std::equal(log.begin(), log.end(), expected.begin()));
    }
    for (const Buffer& buffer : buffers) {
      if (buffer != nullptr) CHECK_NOTHROW(buffer->wait(kLong));
    }
    CHECK(log == expected);
  }
}

TEST_CASE("the calls of one buffer run in the order of their encodes") {
  const Images images;
  const Buffer buffer = make_buffer();
  float before = 0, after = 0;
  buffer->encode_work([&] { before = images.result(); });
  buffer->encode(images.call());
  buffer->encode_work([&] { after = images.result(); });
  buffer->commit();
  buffer->wait(kLong);
  CHECK(before == kBefore);
  CHECK(after == kAfter);
}

TEST_CASE("a failure becomes the buffer's error, which wait throws every time") {
  const Images images;
  const Buffer buffer = make_buffer();
  encode_failure(buffer);
  buffer->encode(images.call());
  bool later_work_ran = false;
  buffer->encode_work([&] { later_work_ran = true; });
  CHECK_NOTHROW(buffer->commit());
  CHECK(buffer->status() == Status::error);
  CHECK(buffer->finished_within(kLong));
  for (int i = 0; i < 2; ++i) {
    const std::string words = refusal_of<DeviceError>([&] { buffer->wait(kLong); });
    CHECK(words.find("out of luck") != std::string::npos);
  }
  REQUIRE(buffer->error() != nullptr);
  check_refused<DeviceError>("", [&] { std::rethrow_exception(buffer->error()); });
  CHECK_FALSE(later_work_ran);
  check_refused<DeviceError>("", [&] { images.gradient->check_readable(); });
  check_refused<DeviceError>("", [&] { images.gradient->check_usable(); });
  CHECK_NOTHROW(images.predictions->check_readable());
  const auto part = gather_images("images", {{images.gradient, 1}});
  check_refused<DeviceError>("", [&] { part->check_readable(); });
  Images chained;
  chained.predictions = images.gradient;
  check_refused<DeviceError>("", [&] { chained.call(); });
}

TEST_CASE("any exception of the work becomes the buffer's error, and the queue goes on") {
  const auto queue = make_queue();
  const Buffer failing = make_buffer(*queue), next = make_buffer(*queue);
  failing->encode_work([] { throw 42; });
  CHECK_NOTHROW(failing->commit());
  CHECK(failing->status() == Status::error);
  CHECK(failing->finished_within(1));
  next->commit();
  CHECK(next->finished_within(1));
}

TEST_CASE("a failed buffer does not stop those behind it") {
  const auto queue = make_queue();
  const Buffer failing = make_buffer(*queue), next = make_buffer(*queue);
  const Images images;
  encode_failure(failing);
  next->encode(images.call());
  failing->enqueue();
  next->commit();
  failing->commit();
  CHECK_NOTHROW(next->wait(kLong));
  CHECK(images.result() == kAfter);
  CHECK_NOTHROW(images.gradient->check_readable());
  check_refused<DeviceError>("", [&] { failing->wait(kLong); });
}

TEST_CASE("images are unreadable from their encode until the buffer has completed") {
  const Images images;
  const Buffer buffer = make_buffer();
  const auto part = gather_images("images", {{images.gradient, 1}});
  CHECK_NOTHROW(images.gradient->check_readable());
  buffer->encode(images.call());
  const auto unreadable = [&] {
    check_refused<StateError>("", [&] { images.gradient->check_readable(); });
    check_refused<StateError>("", [&] { part->check_readable(); });
    CHECK_NOTHROW(images.gradient->check_usable());  // a later call may read them
    CHECK_NOTHROW(images.predictions->check_readable());
  };
  unreadable();
  buffer->enqueue();
  unreadable();
  buffer->encode_work(unreadable);
  buffer->commit();
  buffer->wait(kLong);
  CHECK_NOTHROW(images.gradient->check_readable());
  CHECK_NOTHROW(part->check_readable());
}

TEST_CASE("a gathered batch passes its writer on to the images it was gathered from") {
  Images images;
  const auto whole = images.gradient;
  images.gradient = gather_images("images", {{whole, 1}, {whole, 0}});
  const Buffer buffer = make_buffer();
  buffer->encode(images.call());
  check_refused<StateError>("", [&] { whole->check_readable(); });
  buffer->commit();
  CHECK_NOTHROW(whole->check_readable());
  CHECK(images.result(1) == kAfter);
}

TEST_CASE("discarded or destroyed before the commit, a buffer leaves its images unusable") {
  for (const bool destroy : {false, true}) {
    for (const bool enqueue : {false, true}) {
      const Images images;
      Buffer buffer = make_buffer();
      buffer->encode(images.call());
      bool handled = false;
      buffer->on_completed([&] { handled = true; });
      if (enqueue) buffer->enqueue();
      if (destroy) {
        buffer.reset();
      } else {
        buffer->discard();
      }
      check_refused<StateError>("", [&] { images.gradient->check_readable(); });
      check_refused<StateError>("", [&] { images.gradient->check_usable(); });
      CHECK_NOTHROW(images.predictions->check_readable());
      CHECK(images.result() == kBefore);
      CHECK_FALSE(handled);
      Images chained;
      chained.predictions = images.gradient;
      check_refused<StateError>("", [&] { chained.call(); });
      // Another buffer may still write them.
      const Buffer other = make_buffer();
      other->encode(images.call());
      other->commit();
      other->wait(kLong);
      CHECK_NOTHROW(images.gradient->check_readable());
    }
  }
}

TEST_CASE("a buffer keeps the images of its calls until it has completed, and no longer") {
  for (const bool discard : {false, true}) {
    auto images = std::make_unique<Images>();
    const std::weak_ptr<ImageBatch> batches[] = {images->predictions, images->labels,
                                                 images->gradient};
    const Buffer buffer = make_buffer();
    buffer->encode(images->call());
    images.reset();
    for (const auto& batch : batches) CHECK_FALSE(batch.expired());
    if (discard) {
      buffer->discard();
    } else {
      buffer->commit();
      buffer->wait(kLong);
    }
    for (const auto& batch : batches) CHECK(batch.expired());
  }
}

TEST_CASE("images keep the memory they were made on, and a buffer in flight keeps both") {
  auto memory = std::make_shared<std::vector<float>>(6, 2.0f);
  const std::weak_ptr<std::vector<float>> watched = memory;
  const Buffer buffer = make_buffer();
  {
    Images images;
    images.predictions =
        cpu_device()->wrap_images({{2, 1, 1, 3}, Format::float32},
                                  reinterpret_cast<std::byte*>(memory->data()), false, memory);
    buffer->encode(images.call());
    memory.reset();
  }
  CHECK_FALSE(watched.expired());
  buffer->commit();
  buffer->wait(kLong);
  CHECK(watched.expired());
}

TEST_CASE("handlers run once each, in order, after the work and before wait returns") {
  for (const bool fails : {false, true}) {
    const Images images;
    const Buffer buffer = make_buffer();
    std::vector<int> log;
    buffer->encode(images.call());
    if (fails) encode_failure(buffer);
    encode_log(buffer, log, 0);
    for (int i = 1; i <= 3; ++i) {
      buffer->on_completed([&, i] {
        log.push_back(i);
        CHECK(buffer->status() == (fails ? Status::error : Status::completed));
        CHECK((buffer->error() != nullptr) == fails);
        if (!fails) CHECK_NOTHROW(images.gradient->check_readable());
        CHECK(buffer->times().second > 0);
      });
    }
    buffer->commit();
    CHECK(buffer->finished_within(kLong));
    CHECK(log == (fails ? std::vector<int>{1, 2, 3} : std::vector<int>{0, 1, 2, 3}));
  }
}

TEST_CASE("wait on another thread returns only after the handlers have") {
  for (int trial = 0; trial < 20; ++trial) {
    const Buffer buffer = make_buffer();
    std::atomic<bool> handled = false;
    buffer->on_completed([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      handled = true;
    });
    std::thread committer([&] { buffer->commit(); });
    while (buffer->status() < Status::committed) std::this_thread::yield();
    CHECK_NOTHROW(buffer->wait(kLong));
    CHECK(handled);
    committer.join();
  }
}

TEST_CASE("a wait inside the buffer's own handler is refused") {
  const Buffer buffer = make_buffer();
  std::string wait, poll;
  buffer->on_completed([&] {
    wait = refusal_of<StateError>([&] { buffer->wait(0.0); });
    poll = refusal_of<StateError>([&] { buffer->finished_within(0.0); });
  });
  buffer->commit();
  CHECK_NOTHROW(buffer->wait(kLong));
  CHECK(wait.starts_with("command_buffer"));
  CHECK(poll.starts_with("command_buffer"));
}

TEST_CASE("a handler may commit another buffer of the queue and wait for it") {
  const auto queue = make_queue();
  const Buffer first = make_buffer(*queue), second = make_buffer(*queue),
               third = make_buffer(*queue);
  std::vector<int> log;
  std::string wait_for_outer;
  third->on_completed([&] { wait_for_outer = refusal_of<StateError>([&] { first->wait(0.0); }); });
  second->on_completed([&] {
    third->commit();
    CHECK_NOTHROW(third->wait(kLong));
    log.push_back(2);
  });
  first->on_completed([&] {
    second->commit();
    CHECK_NOTHROW(second->wait(kLong));
    log.push_back(1);
  });
  first->commit();
  CHECK_NOTHROW(first->wait(kLong));
  CHECK(log == std::vector<int>{2, 1});
  CHECK(wait_for_outer.starts_with("command_buffer"));  // it would wait for itself
}

TEST_CASE("a handler may wait for a buffer that was committed before it ran") {
  const auto queue = make_queue();
  const Buffer first = make_buffer(*queue), second = make_buffer(*queue);
  bool finished = false;
  first->on_completed([&] { finished = second->finished_within(2); });
  first->enqueue();
  second->commit();  // behind the first
  first->commit();
  CHECK(finished);
  CHECK_NOTHROW(second->wait(kLong));
}

TEST_CASE("a slow handler does not keep the next buffer from completing") {
  const auto queue = make_queue();
  const Buffer first = make_buffer(*queue), second = make_buffer(*queue);
  std::atomic<bool> release = false;
  std::atomic<bool> inside = false;
  first->on_completed([&] {
    inside = true;
    while (!release) std::this_thread::yield();
  });
  first->enqueue();
  second->commit();
  std::thread committer([&] { first->commit(); });
  while (!inside) std::this_thread::yield();
  CHECK(second->finished_within(2));
  release = true;
  committer.join();
  CHECK_NOTHROW(second->wait(kLong));
}

TEST_CASE("a handler may drop the last references to its buffer and its queue") {
  auto queue = make_queue();
  Buffer buffer = make_buffer(*queue);
  const std::weak_ptr<Queue> watched_queue = queue;
  const std::weak_ptr<CommandBuffer> watched_buffer = buffer;
  buffer->on_completed([&] {
    queue.reset();
    buffer.reset();
  });
  buffer->commit();
  CHECK(watched_buffer.expired());
  CHECK(watched_queue.expired());
}

TEST_CASE("a buffer given up frees those behind it, handlers and all") {
  for (const bool destroy : {false, true}) {
    const auto queue = make_queue();
    Buffer first = make_buffer(*queue);
    const Buffer second = make_buffer(*queue), third = make_buffer(*queue);
    int handled = 0;
    first->enqueue();
    for (const Buffer& buffer : {second, third}) {
      buffer->on_completed([&] { ++handled; });
      buffer->commit();
      CHECK(buffer->status() == Status::committed);
    }
    if (destroy) {
      first.reset();
    } else {
      first->discard();
    }
    CHECK_NOTHROW(second->wait(kLong));
    CHECK_NOTHROW(third->wait(kLong));
    CHECK(handled == 2);
  }
}

TEST_CASE("times are 0 until the buffer has finished, and then follow the order of the queue") {
  const auto queue = make_queue();
  double last = 0;
  for (int i = 0; i < 20; ++i) {
    const Buffer buffer = make_buffer(*queue);
    std::pair<double, double> inside{1, 1};
    buffer->encode_work([&] {
      inside = buffer->times();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    CHECK(buffer->times() == std::pair(0.0, 0.0));
    buffer->commit();
    const auto [begin, end] = buffer->times();
    CHECK(inside == std::pair(0.0, 0.0));
    CHECK(begin >= last);
    CHECK(end >= begin + 0.001);
    last = end;
  }
}

TEST_CASE("many threads may commit to one queue: one buffer at a time, each thread's in order") {
  constexpr int kThreads = 4, kBuffers = 150;
  const auto queue = make_queue();
  std::atomic<int> inside = 0, collisions = 0, handled = 0, wrong = 0;
  std::vector<std::vector<int>> logs(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::vector<int>& log = logs[static_cast<std::size_t>(t)];
      std::vector<Buffer> waiting;
      for (int i = 0; i < kBuffers; ++i) {
        const Images images({40, 1, 1, 1000});
        const Buffer buffer = make_buffer(*queue);
        if (i % 3 == 0) buffer->enqueue();
        buffer->encode_work([&] { collisions += inside++ != 0; });
        if (i % 10 == 0) buffer->encode(images.call());
        encode_log(buffer, log, i);
        buffer->encode_work([&] { --inside; });
        buffer->on_completed([&] { ++handled; });
        buffer->commit();
        if (i % 10 == 0) {
          buffer->wait(kLong);
          wrong += images.result(39) != kAfter;
        } else {
          waiting.push_back(buffer);
        }
      }
      for (const Buffer& buffer : waiting) buffer->wait(kLong);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<int> expected(kBuffers);
  std::iota(expected.begin(), expected.end(), 0);
  for (const auto& log : logs) CHECK(log == expected);
  CHECK(collisions == 0);
  CHECK(handled == kThreads * kBuffers);
  CHECK(wrong == 0);
}

TEST_CASE("many threads may wait for, poll and watch one buffer") {
  for (int trial = 0; trial < 50; ++trial) {
    const Images images;
    const Buffer buffer = make_buffer();
    buffer->encode(images.call());
    std::atomic<bool> go = false;
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        while (!go) std::this_thread::yield();
        while (buffer->status() < Status::committed) std::this_thread::yield();
        if (!buffer->finished_within(kLong)) ++wrong;
        buffer->wait(kLong);
        if (buffer->error() != nullptr || images.result() != kAfter) ++wrong;
        if (buffer->times().second <= 0) ++wrong;
        images.gradient->check_readable();
      });
    }
    go = true;
    buffer->commit();
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}

}  // namespace mpsnn_loss::test
