#include "objects/completion.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

using Clock = std::chrono::steady_clock;

/// So long the thread that took the last task is left to take the next.
constexpr auto kPatience = std::chrono::milliseconds(1);
/// A thread without a task waits so long for one before it ends.
constexpr auto kIdle = std::chrono::milliseconds(200);

struct Task {
  std::function<void()> handlers;
  WorkInFlight work;
};

/// What the threads of this process share.
struct Shared {
  std::mutex mutex;
  std::condition_variable tasks_changed;
  std::deque<Task> tasks;
  int idle_threads = 0, busy_threads = 0;  // ours
  Clock::time_point last_taken;
  std::condition_variable in_flight_changed;
  int in_flight = 0;
  bool ending = false;
  WaitInHandlers* waits = nullptr;  // a list
};

std::atomic<int> fork_count{0};
alignas(Shared) std::byte memory_of_shared[sizeof(Shared)];
std::atomic<bool> is_made{false};

/// Lives for ever, as our threads may outlive static objects.
Shared& shared() {
  static Shared* const made = [] {
    auto* const first = new (memory_of_shared) Shared;
    is_made = true;
    return first;
  }();
  return *made;
}

thread_local const InsideHandlers* innermost = nullptr;

void run_tasks();

/// With the mutex held. Whoever waits for tasks counts as idle from here on.
void start_idle_thread(Shared& s) {
  std::thread(run_tasks).detach();
  ++s.idle_threads;
}

/// An idle thread helps out where no other will take the next task, or not soon; false after kIdle
/// without one.
bool wait_for_task(Shared& s, std::unique_lock<std::mutex>& lock) {
  const auto enough = Clock::now() + kIdle;
  for (;;) {
    const auto due = s.busy_threads == 0 ? Clock::time_point() : s.last_taken + kPatience;
    const auto until = s.tasks.empty() ? enough : due;
    if (Clock::now() >= until) return !s.tasks.empty();
    s.tasks_changed.wait_until(lock, until);
  }
}

/// Runs the first task with the mutex released.
void run_task(Shared& s, std::unique_lock<std::mutex>& lock) {
  const int process = fork_count;
  ++s.busy_threads;
  s.last_taken = Clock::now();
  {
    const Task task = std::move(s.tasks.front());
    s.tasks.pop_front();
    try {
      if (!s.tasks.empty() && s.idle_threads == 0) start_idle_thread(s);
    } catch (const std::exception&) {  // then this thread takes them later
    }
    lock.unlock();
    task.handlers();
  }
  lock.lock();
  if (process == fork_count) --s.busy_threads;  // a child began with none
}

void run_tasks() {
  Shared& s = shared();
  std::unique_lock lock(s.mutex);
  while (wait_for_task(s, lock)) {
    --s.idle_threads;
    while (!s.tasks.empty()) run_task(s, lock);
    ++s.idle_threads;
  }
  --s.idle_threads;
}

}  // namespace

int forks() { return fork_count; }

void after_fork_in_child() {
  ++fork_count;
  if (is_made) new (memory_of_shared) Shared;  // a thread of the parent may have held the mutex
}

WorkInFlight::WorkInFlight(bool always) : counted_in_(kNoProcess) {
  Shared& s = shared();
  const std::lock_guard lock(s.mutex);
  if (s.ending && innermost == nullptr && !always) return;
  ++s.in_flight;
  counted_in_ = fork_count;
}

WorkInFlight::WorkInFlight(WorkInFlight&& other) noexcept
    : counted_in_(std::exchange(other.counted_in_, kNoProcess)) {}

WorkInFlight::~WorkInFlight() {
  if (counted_in_ != fork_count) return;
  Shared& s = shared();
  const std::lock_guard lock(s.mutex);
  if (--s.in_flight == 0) s.in_flight_changed.notify_all();
}

LastWork::LastWork() {
  const std::lock_guard lock(shared().mutex);
  shared().ending = true;
}

LastWork::~LastWork() {
  const std::lock_guard lock(shared().mutex);
  shared().ending = false;
}

int LastWork::left_after(double seconds) const {
  Shared& s = shared();
  std::unique_lock lock(s.mutex);
  s.in_flight_changed.wait_for(lock, std::chrono::duration<double>(seconds),
                               [&] { return s.in_flight == 0; });
  return s.in_flight;
}

InsideHandlers::InsideHandlers(const CommandBuffer& buffer) : buffer_(&buffer), outer_(innermost) {
  innermost = this;
}

InsideHandlers::~InsideHandlers() { innermost = outer_; }

bool InsideHandlers::now() { return innermost != nullptr; }

bool InsideHandlers::of(const CommandBuffer& buffer) {
  return innermost != nullptr && innermost->holds(&buffer);
}

bool InsideHandlers::holds(const CommandBuffer* buffer) const {
  return buffer_ == buffer || (outer_ != nullptr && outer_->holds(buffer));
}

const CommandBuffer* WaitInHandlers::awaited_by(const CommandBuffer* buffer) {
  const auto* wait = shared().waits;
  while (wait != nullptr && !wait->inside_->holds(buffer)) wait = wait->next_;
  return wait != nullptr ? wait->awaited_ : nullptr;
}

WaitInHandlers::WaitInHandlers(const CommandBuffer& awaited)
    : awaited_(&awaited), inside_(innermost) {
  if (inside_ == nullptr) return;
  Shared& s = shared();
  const std::lock_guard lock(s.mutex);
  for (const auto* next = awaited_by(&awaited); next != nullptr; next = awaited_by(next)) {
    if (!inside_->holds(next)) continue;
    throw StateError(
        "command_buffer must not be waited for inside a completed handler that its own handlers "
        "wait "
        "for");
  }
  next_ = std::exchange(s.waits, this);
}

WaitInHandlers::~WaitInHandlers() {
  if (inside_ == nullptr) return;
  Shared& s = shared();
  const std::lock_guard lock(s.mutex);
  WaitInHandlers** link = &s.waits;
  while (*link != this) link = &(*link)->next_;
  *link = next_;
}

void run_elsewhere(std::function<void()> handlers) {
  Shared& s = shared();
  Task task{std::move(handlers), WorkInFlight(true)};
  const std::lock_guard lock(s.mutex);
  if (s.idle_threads == 0) start_idle_thread(s);
  s.tasks.push_back(std::move(task));
  s.tasks_changed.notify_one();
}

}  // namespace mpsnn_loss
