// How committed work ends: threads for completed handlers, what the end of the process waits for,
// and what a fork leaves behind.
//
// Handlers run on the thread that finished the work. A handler may itself commit: what that ends
// has its handlers called by another thread, and never on top of the handler that runs, so that a
// chain of any length is flat. Usually that is one thread of ours, which takes each new task when
// its handler returns. Where that handler takes long, perhaps because it waits for the new task, a
// second thread helps out.
#pragma once

#include <functional>

namespace mpsnn_loss {

class CommandBuffer;

/// How often this process and its ancestors have forked. A child has none of its parent's other
/// threads, and nothing of what follows remembers their work there.
int forks();
/// For whoever knows of forks: to be called in the child, whose only thread it is.
void after_fork_in_child();

/// Work that others do not see the end of: on threads of ours or of a driver, until its handlers
/// have returned.
class WorkInFlight {
 public:
  WorkInFlight() : WorkInFlight(false) {}
  /// `always`: counted at the end of the process too, as it ends what began before.
  explicit WorkInFlight(bool always);
  ~WorkInFlight();
  WorkInFlight(WorkInFlight&& other) noexcept;
  WorkInFlight(const WorkInFlight&) = delete;
  WorkInFlight& operator=(WorkInFlight&&) = delete;

 private:
  static constexpr int kNoProcess = -1;
  int counted_in_;  // the process, by number of forks
};

/// The end of the process. While this lives, new work counts only where a handler commits it; other
/// threads may go on committing, and nobody waits for that.
class LastWork {
 public:
  LastWork();
  ~LastWork();
  LastWork(const LastWork&) = delete;
  LastWork& operator=(const LastWork&) = delete;
  /// How much is still in flight after at most so many seconds.
  int left_after(double seconds) const;
};

/// The handlers of a buffer run on this thread, perhaps inside those of another.
class InsideHandlers {
 public:
  explicit InsideHandlers(const CommandBuffer& buffer);
  ~InsideHandlers();
  InsideHandlers(const InsideHandlers&) = delete;
  InsideHandlers& operator=(const InsideHandlers&) = delete;
  /// Of any buffer, or of this one.
  static bool now();
  static bool of(const CommandBuffer& buffer);

 private:
  bool holds(const CommandBuffer* buffer) const;
  friend class WaitInHandlers;

  const CommandBuffer* const buffer_;
  const InsideHandlers* const outer_;
};

/// A wait of this thread, which matters where it is inside handlers. Throws StateError where
/// handlers would wait for each other, and none would ever return.
class WaitInHandlers {
 public:
  explicit WaitInHandlers(const CommandBuffer& awaited);
  ~WaitInHandlers();
  WaitInHandlers(const WaitInHandlers&) = delete;
  WaitInHandlers& operator=(const WaitInHandlers&) = delete;

 private:
  /// What the handlers of a buffer wait for, or null.
  static const CommandBuffer* awaited_by(const CommandBuffer* buffer);

  const CommandBuffer* const awaited_;
  const InsideHandlers* const inside_;
  WaitInHandlers* next_ = nullptr;  // of all such waits
};

/// Leaves handlers, which must not throw, to another thread, or to this one once its own have
/// returned. Throws where neither memory nor a thread can be had: nothing was left to anybody then.
void run_elsewhere(std::function<void()> handlers);

}  // namespace mpsnn_loss
