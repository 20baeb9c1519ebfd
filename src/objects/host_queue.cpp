#include "objects/host_queue.hpp"

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "core/error.hpp"
#include "core/floating_point.hpp"
#include "objects/completion.hpp"

namespace mpsnn_loss {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

}  // namespace

HostQueue::HostQueue(std::shared_ptr<Device> device, std::string label)
    : Queue(std::move(device), std::move(label)) {}

std::shared_ptr<CommandBuffer> HostQueue::make_command_buffer(const std::string& label) {
  return CommandBuffer::make<HostCommandBuffer>(shared_from_this(), label);
}

void HostQueue::check_alive() const {
  const int process = running_in_;
  if (process == kNowhere || process == forks()) return;
  throw StateError(
      "command_queue must not be used in this process, as another thread was running one of its "
      "buffers when the process was forked: make a new queue");
}

HostQueue::BufferPointer HostQueue::begin_next() noexcept {
  const auto take_turn = [this] {
    int nowhere = kNowhere;
    return running_in_.compare_exchange_strong(nowhere, forks());
  };
  return std::static_pointer_cast<HostCommandBuffer>(order_.take(take_turn));
}

void HostQueue::run(HostCommandBuffer& buffer) noexcept {
  buffer.execute();
  running_in_ = kNowhere;  // a thread that found the turn taken left its buffer for us to run
  // A handler may commit to this queue and wait, so whoever is ready must not wait for it.
  if (buffer.has_handlers()) start_worker();
  buffer.complete();
}

void HostQueue::run_ready() noexcept {
  const auto self = shared_from_this();  // the last handler may drop every other reference
  while (const auto next = begin_next()) {
    if (next->is_large() && run_on_worker(next)) return;
    run(*next);
  }
}

bool HostQueue::start_worker() noexcept { return !order_.is_ready() || run_on_worker(nullptr); }

bool HostQueue::run_on_worker(BufferPointer next) noexcept {
  try {
    // It ends with the work, and keeps the queue until then.
    std::thread([self = shared_from_this(), buffer = std::move(next),
                 in_flight = WorkInFlight()]() mutable {
      if (buffer == nullptr) buffer = self->begin_next();
      for (; buffer != nullptr; buffer = self->begin_next()) self->run(*buffer);
    }).detach();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

std::shared_ptr<ImageBatch> HostCommandBuffer::do_encode(const EncodedPointer& encoded) {
  if (encoded->call.allocator) {
    throw StateError("allocator must be None on the device " + device()->name() +
                     ", whose kernels make no images of their own");
  }
  work_.push_back(encoded);
  return nullptr;
}

void HostCommandBuffer::do_commit() {
  queue_->order().commit(*place_, self());
  queue_->run_ready();
}

void HostCommandBuffer::do_discard() {
  if (place_) queue_->order().remove(*place_);
  // It may have stood before others; whoever discards, perhaps a destructor, must not run them
  // unless there is nobody else.
  if (!queue_->start_worker()) queue_->run_ready();
  work_.clear();
}

void HostCommandBuffer::execute() noexcept {
  set_scheduled();
  begin_ = Clock::now();
  std::exception_ptr error;
  try {
    for (const Work& work : work_) run(work);
  } catch (const std::exception& failure) {
    error = device_failure("the engine failed: ", failure.what());
  } catch (...) {
    error = device_failure("the engine failed");
  }
  work_.clear();  // releases the images
  end_ = Clock::now();
  set_result(error);
}

void HostCommandBuffer::run(const Work& work) {
  if (const auto* const encoded = std::get_if<EncodedPointer>(&work)) {
    device()->engine().compute((*encoded)->computation, nullptr);
  } else {
    std::get<std::function<void()>>(work)();
  }
}

std::pair<double, double> HostCommandBuffer::times() const {
  if (status() < CommandBufferStatus::completed) return {0.0, 0.0};
  return in_default_floating_point([&] { return std::pair{seconds(begin_), seconds(end_)}; });
}

}  // namespace mpsnn_loss
