#include "cpu/queue.hpp"

#include <chrono>
#include <utility>

#include "core/error.hpp"
#include "cpu/device.hpp"
#include "cpu/run.hpp"

namespace mpsnn_loss::cpu {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::shared_ptr<CommandBuffer> CpuQueue::make_command_buffer(const std::string& label) {
  return std::make_shared<CpuCommandBuffer>(shared_from_this(), label);
}

std::shared_ptr<CommandBuffer> CpuQueue::begin_next() {
  const std::lock_guard lock(mutex_);
  if (running_) return nullptr;
  auto buffer = order_.take();
  running_ = buffer != nullptr;
  return buffer;
}

void CpuQueue::run_ready() {
  const auto self = shared_from_this();  // the last handler may drop every other reference
  while (const auto next = begin_next()) {
    auto& buffer = static_cast<CpuCommandBuffer&>(*next);
    buffer.execute();
    {
      const std::lock_guard lock(mutex_);
      running_ = false;
    }
    buffer.finish();  // outside the turn: a handler may commit to this queue and wait
  }
}

void CpuCommandBuffer::do_encode(LossCall call) {
  encode_work([call = std::move(call)] { run(call); });
}

void CpuCommandBuffer::do_commit() {
  queue_->order().commit(shared_from_this());
  queue_->run_ready();
}

void CpuCommandBuffer::do_discard() {
  queue_->order().remove(this);
  queue_->run_ready();  // it may have stood before others
  work_.clear();
}

void CpuCommandBuffer::execute() {
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
