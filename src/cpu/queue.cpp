#include "cpu/queue.hpp"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>
#include <utility>

#include "core/error.hpp"
#include "core/floating_point.hpp"
#include "cpu/device.hpp"
#include "cpu/run.hpp"

namespace mpsnn_loss::cpu {
namespace {

std::atomic<int> forks{0};  // how often this process and its ancestors have forked

double now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return in_default_floating_point([=] { return std::chrono::duration<double>(time).count(); });
}

}  // namespace

CpuQueue::CpuQueue(std::shared_ptr<Device> device, std::string label)
    : Queue(std::move(device), std::move(label)) {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { ++forks; });
  static_cast<void>(registered);
}

std::shared_ptr<CommandBuffer> CpuQueue::make_command_buffer(const std::string& label) {
  return std::make_shared<CpuCommandBuffer>(shared_from_this(), label);
}

void CpuQueue::check_alive() const {
  const std::lock_guard lock(mutex_);
  if (!running_ || running_in_ == forks) return;
  throw StateError(
      "command_queue must not be used in this process, as another thread was running one of its "
      "buffers when the process was forked: make a new queue");
}

CpuQueue::BufferPointer CpuQueue::begin_next() {
  const std::lock_guard lock(mutex_);
  if (running_) return nullptr;
  auto buffer = std::static_pointer_cast<CpuCommandBuffer>(order_.take());
  running_ = buffer != nullptr;
  running_in_ = forks;
  return buffer;
}

void CpuQueue::run(CpuCommandBuffer& buffer) {
  buffer.execute();
  {
    const std::lock_guard lock(mutex_);
    running_ = false;
  }
  // A handler may commit to this queue and wait, so whoever is ready must not wait for it.
  if (buffer.has_handlers()) start_worker();
  buffer.finish();
}

void CpuQueue::run_ready() {
  const auto self = shared_from_this();  // the last handler may drop every other reference
  while (auto next = begin_next()) {
    if (next->is_large()) return run_on_worker(std::move(next));
    run(*next);
  }
}

void CpuQueue::start_worker() {
  if (auto next = begin_next()) run_on_worker(std::move(next));
}

void CpuQueue::run_on_worker(BufferPointer next) {
  const auto work = [self = shared_from_this()](BufferPointer buffer) {
    for (; buffer != nullptr; buffer = self->begin_next()) self->run(*buffer);
  };
  try {
    std::thread(work, next).detach();  // it ends with the work, and keeps the queue until then
  } catch (const std::system_error&) {
    work(std::move(next));  // no more threads to be had
  }
}

void CpuCommandBuffer::do_encode(const LossCall& call) {
  elements_ += call->predictions.shape().elements();
  encode_work([call] { cpu::run(call); });
}

void CpuCommandBuffer::do_commit() {
  queue_->order().commit(shared_from_this());
  queue_->run_ready();
}

void CpuCommandBuffer::do_discard() {
  queue_->order().remove(this);
  // It may have stood before others; whoever discards, perhaps a destructor, must not run them.
  queue_->start_worker();
  work_.clear();
}

void CpuCommandBuffer::execute() {
  set_scheduled();
  begin_ = now();
  std::exception_ptr error;
  try {
    for (const auto& work : work_) work();
  } catch (const std::exception& failure) {
    error = std::make_exception_ptr(
        DeviceError(std::string("the CPU engine failed: ") + failure.what()));
  } catch (...) {
    error = std::make_exception_ptr(DeviceError("the CPU engine failed"));
  }
  work_.clear();  // releases the images
  end_ = now();
  set_result(error);
}

std::pair<double, double> CpuCommandBuffer::times() const {
  if (status() < CommandBufferStatus::completed) return {0.0, 0.0};
  return {begin_, end_};
}

std::shared_ptr<Queue> make_queue(std::shared_ptr<Device> device, const std::string& label) {
  return std::make_shared<CpuQueue>(std::move(device), label);
}

}  // namespace mpsnn_loss::cpu
