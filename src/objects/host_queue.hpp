// A queue for any engine: its buffers run in order and one at a time, small ones on the thread that
// commits, large ones on a thread that the queue starts for them.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "objects/device.hpp"
#include "objects/queue_order.hpp"

namespace mpsnn_loss {

/// A buffer whose calls have so many elements together runs on a thread of its queue, so that
/// commit returns at once. Below, starting the thread would take longer than the work.
inline constexpr std::int64_t kLargeWork = std::int64_t{1} << 17;

class HostCommandBuffer;

class HostQueue final : public Queue, public std::enable_shared_from_this<HostQueue> {
 public:
  HostQueue(std::shared_ptr<Device> device, std::string label);
  std::shared_ptr<CommandBuffer> make_command_buffer(const std::string& label) override;

  QueueOrder& order() { return order_; }
  /// Runs the buffers whose turn it is, up to the first large one, and leaves the rest to a worker.
  void run_ready() noexcept;
  /// Leaves all buffers whose turn it is to a worker. False where no thread can be had.
  bool start_worker() noexcept;
  /// Throws StateError in a process that was forked while another thread ran a buffer: nobody will
  /// end that buffer's turn.
  void check_alive() const;

 private:
  using BufferPointer = std::shared_ptr<HostCommandBuffer>;
  static constexpr int kNowhere = -1;

  /// Takes the turn for the next buffer, if there is one and the turn is free.
  BufferPointer begin_next() noexcept;
  void run(HostCommandBuffer& buffer) noexcept;
  /// Leaves this buffer, whose turn it is, and what comes behind it to a worker; null: only the
  /// latter. False where no thread can be had.
  bool run_on_worker(BufferPointer next) noexcept;

  QueueOrder order_;
  // The process, by number of forks, that runs a buffer: one at a time.
  std::atomic<int> running_in_ = kNowhere;
};

class HostCommandBuffer final : public CommandBuffer {
 public:
  HostCommandBuffer(std::shared_ptr<HostQueue> queue, const std::string& label)
      : CommandBuffer(queue->device(), label, queue.get()), queue_(std::move(queue)) {}
  ~HostCommandBuffer() override { abandon(); }

  /// Any work at its place among the calls; an exception it throws becomes the buffer's error.
  void encode_work(std::function<void()> work) { work_.emplace_back(std::move(work)); }
  bool is_large() const { return elements() >= kLargeWork; }
  void execute() noexcept;
  using CommandBuffer::complete;
  using CommandBuffer::has_handlers;
  std::pair<double, double> times() const override;
  std::shared_ptr<CommandBuffer> gate() const override { return queue_->order().gate(); }

 private:
  using EncodedPointer = std::shared_ptr<const EncodedCall>;
  using Work = std::variant<EncodedPointer, std::function<void()>>;

  std::shared_ptr<ImageBatch> do_encode(const EncodedPointer& encoded) override;
  void run(const Work& work);
  void do_enqueue() override { place_ = queue_->order().add(this); }
  void do_commit() override;
  void do_discard() override;
  void check_queue() const override { queue_->check_alive(); }

  const std::shared_ptr<HostQueue> queue_;
  std::optional<QueueOrder::Place> place_;  // in the queue, from enqueue to commit
  std::vector<Work> work_;
  std::chrono::steady_clock::time_point begin_, end_;
};

}  // namespace mpsnn_loss
