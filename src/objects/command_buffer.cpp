// The life of a command buffer: the same for every device.
#include "objects/command_buffer.hpp"

#include <chrono>
#include <limits>
#include <utility>

#include "core/error.hpp"
#include "objects/completion.hpp"
#include "objects/device.hpp"

namespace mpsnn_loss {

void CommandBuffer::check_open(const char* action) const {
  if (progress_->discarded) {
    throw StateError(std::string("command_buffer must not be discarded to be ") + action);
  }
  if (status() >= CommandBufferStatus::committed) {
    throw StateError(std::string("command_buffer must not be committed yet to be ") + action);
  }
  check_queue();
}

/// The images of one call, which others keep, taken for its buffer, and given back unless the call
/// was encoded.
class CommandBuffer::Claim {
 public:
  explicit Claim(CommandBuffer& buffer) : buffer_(buffer) { taken_.reserve(6); }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  ~Claim() {
    for (const Taken& t : taken_) {
      if (t.is_used) t.uses->remove(t.images, buffer_.progress_, t.writes);
    }
  }

  void add(const char* name, const ImageBatch& batch, bool writes) {
    const ProgressPointer by = buffer_.progress_;
    batch.for_each_use(batch.all(), [&](ImageUses& uses, ImageRange images) {
      Taken& taken = taken_.emplace_back(Taken{&uses, images, writes});
      uses.add(name, images, by, writes);
      taken.is_used = true;
      if (!writes) uses.collect_writers(images, by, writers_);
    });
  }
  void keep() noexcept {
    buffer_.input_writers_.merge(writers_);
    taken_.clear();
  }

 private:
  struct Taken {
    ImageUses* uses;
    ImageRange images;
    bool writes;
    bool is_used = false;
  };

  CommandBuffer& buffer_;
  std::set<ProgressPointer> writers_;  // of its inputs
  std::vector<Taken> taken_;
};

std::shared_ptr<ImageBatch> CommandBuffer::encode(Encode call) {
  const std::lock_guard lock(mutex_);
  check_open("encoded into");
  check_devices(call, *device_);
  const Computation computation = to_computation(call);  // and call.results, unless by an allocator
  const char* const results_name = name_of_results(call.kernel->kind());
  std::shared_ptr<ImageBatch> made;  // outlives the claim on it
  Claim claim(*this);
  for_each_input(
      call, [&](const char* name, const ImageBatch& images) { claim.add(name, images, false); });
  if (call.results != nullptr) claim.add(results_name, *call.results, true);
  made = do_encode(call, computation);
  if (made != nullptr) claim.add(results_name, *made, true);
  claim.keep();
  for (const auto& state : call.destination_states)
    state->values = computation->descriptor.parameters;
  return made != nullptr ? made : call.results;
}

bool CommandBuffer::has_handlers() const {
  const std::lock_guard lock(mutex_);
  return !handlers_.empty();
}

void CommandBuffer::enqueue() {
  const std::lock_guard lock(mutex_);
  check_open("enqueued");
  if (status() == CommandBufferStatus::enqueued) return;
  do_enqueue();
  progress_->status = CommandBufferStatus::enqueued;
}

void CommandBuffer::commit() {
  {
    const std::lock_guard lock(mutex_);
    check_open("committed");
    if (status() == CommandBufferStatus::not_enqueued) do_enqueue();
    progress_->status = CommandBufferStatus::committed;
  }
  do_commit();
}

void CommandBuffer::discard() {
  if (status() < CommandBufferStatus::committed) abandon();
}

void CommandBuffer::abandon() {
  std::vector<std::function<void()>> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (progress_->discarded || progress_->status >= CommandBufferStatus::committed) return;
    progress_->discarded = true;
    dropped.swap(handlers_);
  }
  do_discard();
}

void CommandBuffer::on_completed(std::function<void()> handler) {
  const std::lock_guard lock(mutex_);
  check_open("given a completed handler");
  handlers_.push_back(std::move(handler));
}

std::exception_ptr CommandBuffer::input_error() const noexcept {
  for (const ProgressPointer& writer : input_writers_) {
    if (writer->status == CommandBufferStatus::completed) continue;
    const char* const what = writer->discarded ? "was discarded"
                             : writer->pending()
                                 ? "had not completed, as it is not ahead in the queue"
                                 : "failed";
    return device_failure("the command buffer that should have written an input ", what);
  }
  return nullptr;
}

void CommandBuffer::set_scheduled() {
  begun_in_ = forks();
  progress_->status = CommandBufferStatus::scheduled;
}

void CommandBuffer::set_result(std::exception_ptr error) noexcept {
  static std::atomic<std::uint64_t> ended_buffers{0};
  const std::lock_guard lock(mutex_);
  progress_->error = error ? error : input_error();
  progress_->ended = ++ended_buffers;
  input_writers_.clear();
  progress_->status =
      progress_->error ? CommandBufferStatus::error : CommandBufferStatus::completed;
}

void CommandBuffer::complete() noexcept {
  if (InsideHandlers::now()) return complete_elsewhere();
  finish();
}

void CommandBuffer::complete_elsewhere() noexcept {
  if (!has_handlers()) return finish();
  try {
    run_elsewhere([self = self()] { self->finish(); });
  } catch (const std::exception&) {
    finish();
  }
}

void CommandBuffer::finish() noexcept {
  const auto kept = self();  // the last handler may drop the caller's reference
  std::vector<std::function<void()>> handlers;
  {
    const std::lock_guard lock(mutex_);
    handlers.swap(handlers_);
  }
  {
    const InsideHandlers inside(*this);
    for (auto& handler : handlers) {
      try {
        handler();
      } catch (...) {  // whoever added it has reported what there is to report
      }
      handler = nullptr;
    }
  }
  {
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }
  finished_changed_.notify_all();
}

void CommandBuffer::check_may_wait() const {
  const bool handled_here = InsideHandlers::of(*this);
  // The mutex comes later: a thread that is not in this process may have held it at the fork.
  if (begun_in_ != kNotBegun && begun_in_ != forks() && !finished_ && !handled_here) {
    throw StateError(
        "command_buffer must not be waited for in this process, as it was running when the process "
        "was forked: only the parent sees its end");
  }
  const std::lock_guard lock(mutex_);
  if (status() < CommandBufferStatus::committed) {
    throw StateError("command_buffer must be committed before it is waited for");
  }
  if (handled_here) {
    throw StateError("command_buffer must not be waited for inside its own completed handler");
  }
  if (!finished_) check_queue();
}

bool CommandBuffer::finished_within(double seconds) {
  constexpr double kForever = 1e9;  // more seconds would overflow the clock's count
  check_may_wait();
  const WaitInHandlers wait(*this);
  std::unique_lock lock(mutex_);
  const auto finished = [this] { return finished_.load(); };
  if (seconds < kForever) {
    return finished_changed_.wait_for(lock, std::chrono::duration<double>(seconds), finished);
  }
  finished_changed_.wait(lock, finished);
  return true;
}

void CommandBuffer::wait(std::optional<double> seconds) {
  if (!finished_within(seconds.value_or(std::numeric_limits<double>::infinity()))) {
    throw TimeoutError("command_buffer had not completed after its timeout");
  }
  if (const std::exception_ptr failure = error()) std::rethrow_exception(failure);
}

std::exception_ptr CommandBuffer::error() const {
  const std::lock_guard lock(mutex_);
  return progress_->error;
}

}  // namespace mpsnn_loss
