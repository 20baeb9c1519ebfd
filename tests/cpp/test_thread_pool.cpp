// parallel_for (cpu/thread_pool.hpp).
#include "cpu/thread_pool.hpp"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

/// Runs parallel_for and returns how many indices did not come exactly once.
int wrong_visits(std::int64_t count) {
  std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
  cpu::parallel_for(count, 0,
                    [&](std::int64_t i, std::byte*) { ++visits[static_cast<std::size_t>(i)]; });
  int wrong = 0;
  for (const auto& visit : visits) wrong += visit != 1;
  return wrong;
}

}  // namespace

TEST_CASE("every index is visited once, with any number of threads") {
  for (const std::int64_t threads : {1, 2, 3, 7, 16}) {
    const ThreadCount scope(threads);
    for (const std::int64_t count : {0, 1, 2, 3, 6, 7, 8, 100, 1001}) {
      CHECK(wrong_visits(count) == 0);
    }
  }
}

TEST_CASE("a thread has its scratch to itself") {
  const ThreadCount scope(4);
  constexpr std::int64_t kWords = 100;
  std::atomic<int> spoilt = 0;
  for (int trial = 0; trial < 20; ++trial) {
    cpu::parallel_for(37, kWords * std::int64_t{sizeof(std::int64_t)},
                      [&](std::int64_t i, std::byte* scratch) {
                        auto* const words = reinterpret_cast<volatile std::int64_t*>(scratch);
                        for (std::int64_t k = 0; k < kWords; ++k) words[k] = i + k;
                        for (std::int64_t k = 0; k < kWords; ++k) spoilt += words[k] != i + k;
                      });
  }
  CHECK(spoilt == 0);
}

TEST_CASE("several threads may use the pool at once") {
  const ThreadCount scope(3);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int trial = 0; trial < 200; ++trial) wrong += wrong_visits(50);
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

TEST_CASE("a number of threads below 1 is refused, a huge one is cut") {
  const ThreadCount scope(2);
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{-1}, INT64_MIN}) {
    check_refused<ValueError>("n must be at least 1", [&] { set_num_threads(count); });
    CHECK(num_threads() == 2);
  }
  set_num_threads(INT64_MAX);
  CHECK(num_threads() >= 1);
}

}  // namespace mpsnn_loss::test
