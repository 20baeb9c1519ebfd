// The CPU engine's queue: buffers run in order, on the thread that commits the one they were
// waiting for.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/backend.hpp"
#include "core/loss_call.hpp"
#include "core/queue_order.hpp"

namespace mpsnn_loss::cpu {

class CpuQueue final : public Queue, public std::enable_shared_from_this<CpuQueue> {
 public:
  using Queue::Queue;
  std::shared_ptr<CommandBuffer> make_command_buffer(const std::string& label) override;

  QueueOrder& order() { return order_; }
  /// Runs every buffer whose turn it is.
  void run_ready();

 private:
  std::shared_ptr<CommandBuffer> begin_next();

  QueueOrder order_;
  std::mutex mutex_;
  bool running_ = false;  // one buffer at a time
};

class CpuCommandBuffer final : public CommandBuffer {
 public:
  CpuCommandBuffer(std::shared_ptr<CpuQueue> queue, const std::string& label)
      : CommandBuffer(queue->device(), label), queue_(std::move(queue)) {}
  ~CpuCommandBuffer() override { discard(); }

  /// Any work at its place among the calls; an exception it throws becomes the buffer's error.
  void encode_work(std::function<void()> work) { work_.push_back(std::move(work)); }
  void execute();
  using CommandBuffer::finish;
  std::pair<double, double> times() const override;

 private:
  void do_encode(LossCall call) override;
  void do_enqueue() override { queue_->order().add(this); }
  void do_commit() override;
  void do_help() override { queue_->run_ready(); }
  void do_discard() override;

  const std::shared_ptr<CpuQueue> queue_;
  std::vector<std::function<void()>> work_;
  double begin_ = 0, end_ = 0;
};

}  // namespace mpsnn_loss::cpu
