// Queues: order, states and times of their command buffers, and threads that share one.
#include "objects/host_queue.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "buffers.hpp"

namespace mpsnn_loss::test {

TEST_CASE("buffers run in the order in which their places were taken") {
  Random random(1);
  for (int trial = 0; trial < 300; ++trial) {
    constexpr std::size_t kCount = 6;
    const auto queue = make_queue();
    std::vector<Buffer> buffers;
    Log log;
    std::vector<int> expected, commits(kCount);
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
      const std::vector<int> so_far = log.names();
      REQUIRE(so_far.size() <= expected.size());
      CHECK(std::equal(so_far.begin(), so_far.end(), expected.begin()));
    }
    for (const Buffer& buffer : buffers) {
      if (buffer != nullptr) CHECK_NOTHROW(buffer->wait(kLong));
    }
    CHECK(log.names() == expected);
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
  std::vector<Log> logs(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Log& log = logs[static_cast<std::size_t>(t)];
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
  for (const Log& log : logs) CHECK(log.names() == expected);
  CHECK(collisions == 0);
  CHECK(handled == kThreads * kBuffers);
  CHECK(wrong == 0);
}

TEST_CASE("commit returns before large work is done, and the order of the queue is kept") {
  const auto queue = make_queue();
  const Images large({1, 1, 1, kLargeWork}), small;
  const Buffer first = make_buffer(*queue), second = make_buffer(*queue);
  std::atomic<bool> committed = false, in_time = true, first_was_done = false;
  std::thread::id worker;
  first->encode_work([&] {
    worker = std::this_thread::get_id();
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(kLong);
    while (!committed && in_time) {
      in_time = std::chrono::steady_clock::now() < end;
      std::this_thread::yield();
    }
  });
  first->encode(large.call());
  second->encode_work([&] { first_was_done = first->status() == Status::completed; });
  second->encode(small.call());
  first->commit();
  second->commit();
  while (first->status() == Status::committed) std::this_thread::yield();
  CHECK(first->status() == Status::scheduled);
  CHECK(second->status() == Status::committed);
  CHECK_FALSE(first->finished_within(0.001));
  committed = true;
  second->wait(kLong);
  CHECK(in_time);
  CHECK(first_was_done);
  CHECK(worker != std::this_thread::get_id());
  CHECK(large.result() == kAfter);
  CHECK(small.result() == kAfter);
}

}  // namespace mpsnn_loss::test
