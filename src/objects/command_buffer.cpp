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

/// The images of a call taken for its buffer, and given back unless the call was encoded.
class CommandBuffer::Claim {
 public:
  Claim(CommandBuffer& buffer, const Encode& call)
      : buffer_(buffer), call_(call), by_(buffer.progress_) {}
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  ~Claim() {
    if (taken_ > 0) give_back();
  }

  void take_all() {
    for_each_argument(call_, [&](const char* name, const ImageBatch& batch, bool writes) {
      batch.for_each_use(batch.all(), [&](ImageUses& uses, ImageRange images) {
        uses.add(name, images, by_, writes, writers_);
        ++taken_;
      });
    });
  }
  void keep() noexcept {
    buffer_.input_writers_.merge(writers_);
    taken_ = 0;
  }

 private:
  void give_back() noexcept {
    for_each_argument(call_, [&](const char*, const ImageBatch& batch, bool writes) {
      batch.for_each_use(batch.all(), [&](ImageUses& uses, ImageRange images) {
        if (taken_ == 0) return;
        uses.remove(images, by_, writes);
        --taken_;
      });
    });
  }

  CommandBuffer& buffer_;
  const Encode& call_;
  const ProgressPointer by_;
  std::set<ProgressPointer> writers_;  // of its inputs
  std::size_t taken_ = 0;              // so many of its uses, from the first on
};

std::shared_ptr<ImageBatch> CommandBuffer::encode(Encode given) {
  check_encodable();
  check_devices(given, *device_);
  const auto encoded = std::make_shared<const EncodedCall>(std::move(given));
  const Encode& call = encoded->call;
  std::shared_ptr<ImageBatch> made;  // outlives the lock
  const std::lock_guard lock(mutex_);
  check_encodable();  // another thread may have committed
  Claim claim(*this, call);
  claim.take_all();
  made = do_encode(encoded);
  if (made != nullptr) {
    // Nobody else has them yet, so that this use needs no way back.
    std::set<ProgressPointer> none;
    made->for_each_use(made->all(), [&](ImageUses& uses, ImageRange images) {
      uses.add(name_of_results(call.kernel->kind()), images, progress_, true, none);
    });
  }
  claim.keep();
  elements_ += encoded->computation->predictions.shape().elements();
  for (const auto& state : call.destination_states)
    state->values = encoded->computation->descriptor.parameters;
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
  std::unique_lock lock(mutex_);
  if (!handlers_.empty()) {
    auto handlers = std::exchange(handlers_, {});
    lock.unlock();
    run_handlers(handlers);
    lock.lock();
  }
  finished_ = true;
  lock.unlock();
  finished_changed_.notify_all();
}

void CommandBuffer::run_handlers(std::vector<std::function<void()>>& handlers) noexcept {
  const InsideHandlers inside(*this);
  for (auto& handler : handlers) {
    try {
      handler();
    } catch (...) {  // whoever added it has reported what there is to report
    }
    handler = nullptr;
  }
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
  if (finished_) return true;
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
  throw_error();
}

void CommandBuffer::throw_error() const {
  if (const std::exception_ptr failure = error()) std::rethrow_exception(failure);
}

std::exception_ptr CommandBuffer::error() const {
  return progress_->status == CommandBufferStatus::error ? progress_->error : nullptr;
}

}  // namespace mpsnn_loss
