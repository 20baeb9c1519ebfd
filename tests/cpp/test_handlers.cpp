// Completed handlers of command buffers.
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "buffers.hpp"
#include "objects/completion.hpp"

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

TEST_CASE("handlers that commit buffers with handlers go on for ever in a flat stack") {
  const auto queue = make_queue();
  constexpr int kRounds = 100000;
  std::atomic<int> rounds = 0;
  std::function<void()> commit_next = [&] {
    const Buffer next = make_buffer(*queue);
    next->on_completed([&] {
      if (++rounds < kRounds) commit_next();
    });
    next->commit();
  };
  commit_next();
  CHECK(LastWork().left_after(kLong) == 0);
  CHECK(rounds == kRounds);
}

TEST_CASE("a handler may wait for what another handler does, however it waits") {
  const auto queue = make_queue();
  constexpr int kDepth = 20;
  std::atomic<int> entered = 0;
  std::function<void()> nest = [&] {
    const int depth = ++entered;
    if (depth == kDepth) return;
    const Buffer inner = make_buffer(*queue), other = make_buffer();
    other->on_completed([] {});
    inner->on_completed(nest);
    other->commit();
    inner->commit();
    while (entered == depth) std::this_thread::yield();
    CHECK_NOTHROW(other->wait(kLong));
  };
  const Buffer outer = make_buffer(*queue);
  outer->on_completed(nest);
  outer->commit();
  CHECK_NOTHROW(outer->wait(kLong));
  CHECK(LastWork().left_after(kLong) == 0);
  CHECK(entered == kDepth);
}

TEST_CASE("the end waits for what handlers commit, and not for what others go on committing") {
  const auto queue = make_queue();
  std::atomic<bool> stop = false, handled = false;
  std::thread busy([&] {
    const Images large({1, 1, 1, kLargeWork});
    const auto own = make_queue();
    while (!stop) {
      const Buffer buffer = make_buffer(*own);
      buffer->encode(large.call());
      buffer->commit();
      buffer->wait(kLong);
    }
  });
  const Buffer first = make_buffer(*queue), second = make_buffer(*queue);
  second->on_completed([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    handled = true;
  });
  first->on_completed([&] { second->commit(); });
  first->commit();
  {
    const LastWork last;
    CHECK(last.left_after(kLong) == 0);
    CHECK(handled);
  }
  stop = true;
  busy.join();
}

TEST_CASE("what a handler throws is lost, and the handlers after it run") {
  const Buffer buffer = make_buffer();
  bool handled = false;
  buffer->on_completed([] { throw 42; });
  buffer->on_completed([&] { handled = true; });
  CHECK_NOTHROW(buffer->commit());
  CHECK_NOTHROW(buffer->wait(kLong));
  CHECK(handled);
}

}  // namespace mpsnn_loss::test
