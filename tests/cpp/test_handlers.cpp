// Completed handlers of command buffers.
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "buffers.hpp"

namespace mpsnn_loss::test {

TEST_CASE("handlers run once each, in order, after the work and before wait returns") {
  for (const bool fails : {false, true}) {
    const Images images;
    const Buffer buffer = make_buffer();
    Log log;
    buffer->encode(images.call());
    if (fails) encode_failure(buffer);
    encode_log(buffer, log, 0);
    for (int i = 1; i <= 3; ++i) {
      buffer->on_completed([&, i] {
        log.add(i);
        CHECK(buffer->status() == (fails ? Status::error : Status::completed));
        CHECK((buffer->error() != nullptr) == fails);
        if (!fails) CHECK_NOTHROW(images.gradient->check_readable());
        CHECK(buffer->times().second > 0);
      });
    }
    buffer->commit();
    CHECK(buffer->finished_within(kLong));
    CHECK(log.names() == (fails ? std::vector<int>{1, 2, 3} : std::vector<int>{0, 1, 2, 3}));
  }
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
  first->on_completed([&] { finished = second->finished_within(kLong); });
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

}  // namespace mpsnn_loss::test
