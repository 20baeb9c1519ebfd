// What the queues of every device have in common.
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "buffers.hpp"

namespace mpsnn_loss::test {

using AnyBuffer = std::shared_ptr<CommandBuffer>;

AnyBuffer make_buffer_of(Queue& queue) { return queue.make_command_buffer("buffer"); }
std::shared_ptr<Queue> make_queue_of(const std::shared_ptr<Device>& device) {
  return device->make_queue("queue");
}

TEST_CASE("a buffer goes from not enqueued to enqueued, committed and completed") {
  const auto queue = make_queue_of(each_device());
  const AnyBuffer first = make_buffer_of(*queue), second = make_buffer_of(*queue);
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
  for (const AnyBuffer& buffer : {first, second}) {
    CHECK(buffer->finished_within(kLong));
    CHECK_NOTHROW(buffer->wait({}));
    CHECK_NOTHROW(buffer->wait(0.0));
    CHECK(buffer->status() == Status::completed);
    CHECK(buffer->error() == nullptr);
  }
}

TEST_CASE("what comes too late or too early is refused") {
  const auto device = each_device();
  const auto queue = make_queue_of(device);
  const Images images({2, 1, 1, 3}, device);
  const AnyBuffer buffer = make_buffer_of(*queue);
  check_refused<StateError>("command_buffer", [&] { buffer->wait(0.0); });
  check_refused<StateError>("command_buffer", [&] { buffer->finished_within(0.0); });
  buffer->enqueue();
  check_refused<StateError>("command_buffer", [&] { buffer->wait(0.0); });
  buffer->encode(images.call());  // enqueued is not too late
  buffer->commit();
  const AnyBuffer discarded = make_buffer_of(*queue);
  discarded->discard();
  for (const AnyBuffer& closed : {buffer, discarded}) {
    check_refused<StateError>("command_buffer", [&] { closed->encode(images.call()); });
    check_refused<StateError>("command_buffer", [&] { closed->check_encodable(); });
    check_refused<StateError>("command_buffer", [&] { closed->enqueue(); });
    check_refused<StateError>("command_buffer", [&] { closed->commit(); });
    check_refused<StateError>("command_buffer", [&] { closed->on_completed([] {}); });
    CHECK_NOTHROW(closed->discard());
  }
  CHECK_NOTHROW(buffer->wait(kLong));
  CHECK(buffer->status() == Status::completed);
  check_refused<StateError>("command_buffer", [&] { discarded->wait(0.0); });
}

TEST_CASE("a wait of many years does not time out at once") {
  const auto queue = make_queue_of(each_device());
  const AnyBuffer first = make_buffer_of(*queue), second = make_buffer_of(*queue);
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

TEST_CASE("a buffer given up frees those behind it, handlers and all") {
  const auto device = each_device();
  for (const bool destroy : {false, true}) {
    const auto queue = make_queue_of(device);
    AnyBuffer first = make_buffer_of(*queue);
    const AnyBuffer second = make_buffer_of(*queue), third = make_buffer_of(*queue);
    std::atomic<int> handled = 0;  // handlers of two buffers may run at once
    first->enqueue();
    for (const AnyBuffer& buffer : {second, third}) {
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

TEST_CASE("many threads may wait for, poll and watch one buffer") {
  const auto device = each_device();
  const auto queue = make_queue_of(device);
  for (int trial = 0; trial < 50; ++trial) {
    const Images images({2, 1, 1, 3}, device);
    const AnyBuffer buffer = make_buffer_of(*queue);
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

TEST_CASE("wait on another thread returns only after the handlers have") {
  const auto queue = make_queue_of(each_device());
  for (int trial = 0; trial < 20; ++trial) {
    const AnyBuffer buffer = make_buffer_of(*queue);
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
  const auto queue = make_queue_of(each_device());
  const AnyBuffer buffer = make_buffer_of(*queue);
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

TEST_CASE("a handler may drop the last references to its buffer and its queue") {
  auto queue = make_queue_of(each_device());
  AnyBuffer buffer = make_buffer_of(*queue);
  const std::weak_ptr<Queue> watched_queue = queue;
  const std::weak_ptr<CommandBuffer> watched_buffer = buffer;
  buffer->on_completed([&] {
    queue.reset();
    buffer.reset();
  });
  watched_buffer.lock()->commit();
  // Where another thread runs the handler, it lets go a moment later.
  const int longest = static_cast<int>(kLong * 1000);
  for (int i = 0; i < longest && !(watched_buffer.expired() && watched_queue.expired()); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(watched_buffer.expired());
  CHECK(watched_queue.expired());
}

}  // namespace mpsnn_loss::test
