#include "cpu/queue.hpp"

#include <algorithm>
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

void CpuQueue::add(CpuCommandBuffer* buffer) {
  const std::lock_guard lock(mutex_);
  order_.push_back({buffer, nullptr});
}

void CpuQueue::remove(CpuCommandBuffer* buffer) {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(order_, [buffer](const Place& place) { return place.buffer == buffer; });
  }
  run_ready();  // it may have stood before others
}

void CpuQueue::commit(std::shared_ptr<CpuCommandBuffer> buffer) {
  {
    const std::lock_guard lock(mutex_);
    const auto place = std::find_if(order_.begin(), order_.end(),
                                    [&](const Place& p) { return p.buffer == buffer.get(); });
    place->committed = std::move(buffer);
  }
  run_ready();
}

std::shared_ptr<CpuCommandBuffer> CpuQueue::take_ready() {
  const std::lock_guard lock(mutex_);
  if (running_ || order_.empty() || order_.front().committed == nullptr) return nullptr;
  auto buffer = std::move(order_.front().committed);
  order_.pop_front();
  running_ = true;
  return buffer;
}

void CpuQueue::run_ready() {
  while (const auto buffer = take_ready()) {
    buffer->execute();
    {
      const std::lock_guard lock(mutex_);
      running_ = false;
    }
    buffer->finish();  // outside the turn: a handler may commit to this queue and wait
  }
}

void CpuCommandBuffer::do_encode(LossCall call) {
  encode_work([call = std::move(call)] { run(call); });
}

void CpuCommandBuffer::do_discard() {
  queue_->remove(this);
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
