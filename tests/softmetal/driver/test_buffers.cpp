// Command buffers: how they end, in what order, and what is left of those that nobody commits.
#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "on_the_double.hpp"

namespace mpsnn_loss::test {

TEST_CASE_FIXTURE(OnTheDouble, "the life of a command buffer") {
  const Gradient gradient(device);
  const Buffer buffer = make_buffer();
  CHECK(buffer->status() == Status::not_enqueued);
  check_refused<StateError>("command_buffer", [&] { buffer->wait(0.0); });
  buffer->enqueue();
  buffer->encode(gradient.call);
  check_refused<StateError>("", [&] { gradient.call.results->check_readable(); });
  CHECK(foreign.command_buffer_pointer(*buffer) != nullptr);
  CHECK(buffer->times() == std::pair(0.0, 0.0));
  buffer->commit();
  CHECK(buffer->finished_within(kLong));
  buffer->wait({});
  CHECK(buffer->status() == Status::completed);
  CHECK(buffer->times().second >= buffer->times().first);
  CHECK(gradient.result() == 3);
  check_refused<StateError>("command_buffer", [&] { buffer->encode(gradient.call); });
  check_refused<StateError>("command_buffer", [&] { buffer->commit(); });
  check_refused<StateError>("command_buffer", [&] { buffer->enqueue(); });
  check_refused<StateError>("command_buffer", [&] { buffer->on_completed([] {}); });
  CHECK_NOTHROW(buffer->discard());
}

TEST_CASE_FIXTURE(OnTheDouble, "buffers that encode nothing complete as well") {
  const auto queue = device->make_queue("");
  for (int i = 0; i < 100; ++i) {
    const Buffer buffer = queue->make_command_buffer("");
    buffer->commit();
    CHECK_NOTHROW(buffer->wait(kLong));
  }
}

TEST_CASE_FIXTURE(OnTheDouble,
                  "many buffers may be in flight, nobody waiting for any but the last") {
  const auto queue = device->make_queue("");
  const Gradient gradient(device);
  Buffer last;
  for (int i = 0; i < 200; ++i) {
    last = queue->make_command_buffer("");
    last->encode(gradient.call);
    last->commit();
  }
  last->wait(kLong);
  CHECK(gradient.result() == 3);
}

TEST_CASE_FIXTURE(OnTheDouble, "more encoded buffers than Metal's queue has places are refused") {
  const auto queue = device->make_queue("");
  const Gradient gradient(device);
  std::vector<Buffer> open;
  for (int i = 0; i < 64; ++i) {
    open.push_back(queue->make_command_buffer(""));
    open.back()->encode(gradient.call);
  }
  const Buffer extra = queue->make_command_buffer("");
  check_refused<StateError>("command_queue", [&] { extra->encode(gradient.call); });
  open[3]->discard();
  open[5].reset();
  CHECK_NOTHROW(extra->encode(gradient.call));
  CHECK_NOTHROW(queue->make_command_buffer("")->encode(gradient.call));
}

TEST_CASE_FIXTURE(OnTheDouble, "a buffer given up frees those behind it, and what it would write") {
  for (const bool destroy : {false, true}) {
    const auto queue = device->make_queue("");
    const Gradient dropped(device), kept(device);
    Buffer first = queue->make_command_buffer("");
    const Buffer second = queue->make_command_buffer("");
    first->encode(dropped.call);
    first->enqueue();
    second->encode(kept.call);
    second->commit();
    CHECK_FALSE(second->finished_within(0.01));
    if (destroy) {
      first.reset();
    } else {
      first->discard();
    }
    second->wait(kLong);
    CHECK(kept.result() == 3);
    check_refused<StateError>("", [&] { dropped.call.results->check_usable(); });
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "handlers run once each, in order, before wait returns") {
  for (int trial = 0; trial < 20; ++trial) {
    const Gradient gradient(device);
    const Buffer buffer = make_buffer();
    buffer->encode(gradient.call);
    std::vector<int> log;
    std::string refused;
    for (int i = 0; i < 3; ++i) {
      buffer->on_completed([&, i] {
        log.push_back(i);
        CHECK(gradient.result() == 3);
        refused = refusal_of<StateError>([&] { buffer->wait(0.0); });
      });
    }
    buffer->commit();
    buffer->wait(kLong);
    CHECK(log == std::vector<int>{0, 1, 2});
    CHECK(refused.starts_with("command_buffer"));
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "a handler may drop the last references to its buffer and queue") {
  auto queue = device->make_queue("");
  Buffer buffer = queue->make_command_buffer("");
  std::atomic<bool> done = false;
  const std::weak_ptr<CommandBuffer> watched = buffer;
  {
    const Gradient gradient(device);
    buffer->encode(gradient.call);
  }
  buffer->on_completed([&] {
    queue.reset();
    buffer.reset();
    done = true;
  });
  watched.lock()->commit();
  CHECK(eventually([&] { return done && watched.expired(); }));
}

TEST_CASE_FIXTURE(OnTheDouble, "a handler may commit the next buffer") {
  const auto queue = device->make_queue("");
  const Gradient gradient(device);
  const Buffer first = queue->make_command_buffer(""), second = queue->make_command_buffer("");
  second->encode(gradient.call);
  first->on_completed([&] { second->commit(); });
  first->commit();
  first->wait(kLong);
  second->wait(kLong);
  CHECK(gradient.result() == 3);
}

TEST_CASE_FIXTURE(OnTheDouble, "a buffer may be encoded and polled by several threads") {
  const auto queue = device->make_queue("");
  for (int trial = 0; trial < 10; ++trial) {
    const Buffer buffer = queue->make_command_buffer("");
    const Gradient a(device), b(device), c(device);
    std::vector<std::thread> threads;
    for (const Gradient* gradient : {&a, &b, &c}) {
      threads.emplace_back([buffer, gradient] { buffer->encode(gradient->call); });
    }
    for (std::thread& thread : threads) thread.join();
    threads.clear();
    std::atomic<int> wrong = 0;
    for (const Gradient* gradient : {&a, &b, &c}) {
      threads.emplace_back([&wrong, buffer, gradient] {
        while (buffer->status() < Status::committed) std::this_thread::yield();
        buffer->wait(kLong);
        wrong += gradient->result() != 3;
        wrong += buffer->times().second <= 0;
      });
    }
    buffer->commit();
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}

TEST_CASE_FIXTURE(OnTheDouble, "what is wrong with a call is said before anything is encoded") {
  const Gradient gradient(device);
  const Buffer buffer = make_buffer();
  Encode call = gradient.call;
  call.results = call.predictions;
  check_refused<ValueError>("destination_gradients", [&] { buffer->encode(call); });
  call = gradient.call;
  call.labels = filled(*device, {2, 1, 1, 4}, 0);
  check_refused<ValueError>("labels", [&] { buffer->encode(call); });
  call = gradient.call;
  call.labels = cpu_device()->make_images({{2, 1, 1, 3}, Format::float32});
  check_refused<StateError>("labels", [&] { buffer->encode(call); });
  call = gradient.call;
  for (const double weight : {1.0, 2.0}) {
    call.source_states.push_back(call.kernel->make_state());
    call.source_states.back()->values = LossParameters{weight};
  }
  check_refused<ValueError>("source_states", [&] { buffer->encode(call); });
  CHECK_NOTHROW(buffer->encode(gradient.call));
  buffer->commit();
  buffer->wait(kLong);
  CHECK(gradient.result() == 3);
}

}  // namespace mpsnn_loss::test
