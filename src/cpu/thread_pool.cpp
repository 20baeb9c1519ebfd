#include "cpu/thread_pool.hpp"

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "core/error.hpp"
#include "core/floating_point.hpp"
#include "cpu/thread_count.hpp"

namespace mpsnn_loss::cpu {
namespace {

using Clock = std::chrono::steady_clock;

/// How long a worker spins for its next job before it goes to sleep.
constexpr auto kSpin = std::chrono::microseconds(100);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Spins until `done`, or gives up after kSpin.
template <class Done>
bool spin_until(Done done) {
  const auto end = Clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      pause();
    }
  } while (Clock::now() < end);
  return false;
}

/// The processor of this thread, or -1.
int current_processor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

/// Sends a thread to the caller's processors but for the one it is on.
void send_away([[maybe_unused]] pthread_t thread) {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return;
  CPU_CLR(current_processor(), &set);
  if (CPU_COUNT(&set) > 0) pthread_setaffinity_np(thread, sizeof set, &set);
#endif
}

/// One parallel_for. Each part has a contiguous share of [0, count), from which whoever has nothing
/// left to do helps itself, so that nobody waits for a thread that comes late.
struct Job {
  void (*run)(void*, std::int64_t, std::byte*);
  void* context;
  std::int64_t count;
  int parts;
  std::byte* scratch;  // scratch_bytes for each part
  std::int64_t scratch_bytes;
  std::atomic<std::int64_t>* taken;  // of each part's share
  std::atomic<int> pending;          // workers that may still be at work

  void run_part(int own) const {
    std::byte* const own_scratch = scratch + own * scratch_bytes;
    for (int k = 0; k < parts; ++k) {
      const int part = (own + k) % parts;
      const std::int64_t first = count * part / parts, size = count * (part + 1) / parts - first;
      for (std::int64_t i; (i = taken[part].fetch_add(1, std::memory_order_relaxed)) < size;)
        run(context, first + i, own_scratch);
    }
  }
};

class Worker {
 public:
  explicit Worker(int part) : part_(part), thread_([this] { live(); }) {
    handle_ = thread_.native_handle();
    send_away(handle_);
    thread_.detach();
  }

  /// Takes a job back that the worker has not begun; false where it has.
  bool revoke() { return job_.exchange(nullptr) != nullptr; }
  void give(Job& job) {
    job_.store(&job);
    if (!asleep_.load()) return;
    // Systems tend to wake a thread on its waker's processor, where it would wait for the whole
    // job.
    if (processor_.load(std::memory_order_relaxed) == current_processor()) send_away(handle_);
    {
      const std::lock_guard lock(mutex_);
    }
    wake_.notify_one();
  }

 private:
  [[noreturn]] void live() {
    const auto has_job = [this] { return job_.load() != nullptr; };
    for (;;) {
      if (!spin_until(has_job)) {
        std::unique_lock lock(mutex_);
        processor_.store(current_processor(), std::memory_order_relaxed);
        asleep_.store(true);
        // Once: where the job is done before the worker is awake, the next one may find it so.
        if (!has_job()) wake_.wait(lock);
        asleep_.store(false);
      }
      Job* const job = job_.exchange(nullptr);
      if (job == nullptr) continue;  // revoked
      // A thread inherits the environment of whoever started it, and nobody else's calls.
      in_default_floating_point([&] { job->run_part(part_); });
      job->pending.fetch_sub(1, std::memory_order_release);  // after this the job may be gone
    }
  }

  const int part_;
  std::atomic<Job*> job_{nullptr};
  std::atomic<bool> asleep_{false};
  std::atomic<int> processor_{-1};  // where it fell asleep
  pthread_t handle_{};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread thread_;
};

class Pool {
 public:
  /// False where another caller has the pool.
  bool try_run(Job& job) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return false;
    try {
      while (static_cast<int>(workers_.size()) < job.parts - 1) {
        workers_.push_back(std::make_unique<Worker>(static_cast<int>(workers_.size()) + 1));
      }
    } catch (const std::exception&) {
      job.parts = static_cast<int>(workers_.size()) + 1;  // no more threads to be had: fewer do it
    }
    job.pending = job.parts - 1;
    for (int part = 1; part < job.parts; ++part)
      workers_[static_cast<std::size_t>(part - 1)]->give(job);
    job.run_part(0);
    for (int part = 1; part < job.parts; ++part) {
      if (workers_[static_cast<std::size_t>(part - 1)]->revoke()) --job.pending;
    }
    const auto finished = [&job] { return job.pending.load(std::memory_order_acquire) == 0; };
    while (!spin_until(finished)) std::this_thread::yield();
    return true;
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

// Never destroyed: its threads may outlive the destructors of the process. A forked child has none
// of those threads, so it starts with a pool of its own.
std::atomic<Pool*> current_pool{nullptr};

Pool& pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { current_pool = nullptr; });
  static_cast<void>(registered);
  Pool* existing = current_pool.load();
  if (existing != nullptr) return *existing;
  auto fresh = std::make_unique<Pool>();
  if (current_pool.compare_exchange_strong(existing, fresh.get())) return *fresh.release();
  return *existing;
}

std::atomic<int> chosen_threads{0};

constexpr std::size_t kCacheLine = 64;

std::byte* allocate(std::int64_t bytes) {
  return static_cast<std::byte*>(
      ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{kCacheLine}));
}
void release(std::byte* data) { ::operator delete(data, std::align_val_t{kCacheLine}); }

/// What a thread keeps until it ends, so that small calls need not allocate. After that it counts
/// as lent for ever.
struct KeptScratch {
  std::byte* data = nullptr;
  std::int64_t bytes = 0;
  bool is_lent = false;
};
thread_local constinit KeptScratch kept;
struct AtThreadEnd {
  ~AtThreadEnd() {
    release(kept.data);
    kept = {nullptr, 0, true};
  }
};

/// The scratch of one parallel_for: what the thread keeps, or memory of its own where that is lent
/// already or would be too much to keep.
class Scratch {
 public:
  Scratch(std::int64_t each, int parts)
      : kept_(kept), borrowed_(!kept_.is_lent && each <= kMostKept) {
    const std::int64_t bytes = each * parts;
    if (borrowed_ && bytes > kept_.bytes) {
      static thread_local const AtThreadEnd at_end;
      static_cast<void>(at_end);
      std::byte* const larger = allocate(bytes);
      release(kept_.data);
      kept_ = {larger, bytes, false};
    }
    data_ = borrowed_ ? kept_.data : allocate(bytes);
    if (borrowed_) kept_.is_lent = true;
  }
  ~Scratch() {
    if (borrowed_) {
      kept_.is_lent = false;
    } else {
      release(data_);
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::byte* data() const { return data_; }

 private:
  static constexpr std::int64_t kMostKept = 1 << 20;  // of each part

  KeptScratch& kept_;  // of this thread, which is looked up once
  const bool borrowed_;
  std::byte* data_;
};

}  // namespace

int num_threads() {
  int count = chosen_threads.load(std::memory_order_relaxed);
  if (count == 0) {
    count = default_thread_count();
    chosen_threads = count;
  }
  return count;
}

void set_num_threads(std::int64_t count) {
  if (count < 1) throw ValueError(refusal("n", "be at least 1", std::to_string(count)));
  chosen_threads = static_cast<int>(std::min<std::int64_t>(count, 1024));
}

void parallel_for(std::int64_t count, std::int64_t scratch_bytes,
                  void (*run)(void*, std::int64_t, std::byte*), void* context) {
  constexpr auto kLine = static_cast<std::int64_t>(kCacheLine);
  const int parts = count > 1 ? static_cast<int>(std::min<std::int64_t>(num_threads(), count)) : 1;
  const std::int64_t bytes = (scratch_bytes + kLine - 1) / kLine * kLine;
  const Scratch scratch(bytes, parts);
  if (parts > 1) {
    const auto taken =
        std::make_unique<std::atomic<std::int64_t>[]>(static_cast<std::size_t>(parts));
    Job job{run, context, count, parts, scratch.data(), bytes, taken.get(), {}};
    if (pool().try_run(job)) return;
  }
  for (std::int64_t i = 0; i < count; ++i) run(context, i, scratch.data());
}

}  // namespace mpsnn_loss::cpu
