// The life of a command buffer and what images learn from it: the same for every engine.
#include <limits>
#include <utility>

#include "core/backend.hpp"
#include "core/error.hpp"
#include "core/loss_call.hpp"

namespace mpsnn_loss {
namespace {

void check_device(const Operand& operand, const Device* device) {
  if (operand.images == nullptr || operand.images->device().get() == device) return;
  throw StateError(refusal(operand.name,
                           "be on the device of the command buffer, " + device->name(),
                           operand.images->device()->name()));
}

}  // namespace

void CommandBuffer::check_open(const char* action) const {
  if (progress_->discarded) {
    throw StateError(std::string("command_buffer must not be discarded to be ") + action);
  }
  if (status() >= CommandBufferStatus::committed) {
    throw StateError(std::string("command_buffer must not be committed yet to be ") + action);
  }
}

void CommandBuffer::check_devices(const LossRequest& request) const {
  for (const Operand* operand : {&request.predictions, &request.labels, &request.weights,
                                 &request.source_gradients, &request.loss, &request.gradient}) {
    check_device(*operand, device_.get());
  }
  const auto check_states = [&](const char* name, const auto& states) {
    for (const auto& state : states) {
      if (state->device == device_) continue;
      throw StateError(refusal(name, "be of the device of the command buffer, " + device_->name(),
                               state->device->name()));
    }
  };
  check_states("source_states", request.source_states);
  check_states("destination_states", request.destination_states);
}

void CommandBuffer::encode(LossCall call) {
  const LossCall kept = call;  // freed after the mutex, as freeing may wait for the GIL
  const std::lock_guard lock(mutex_);
  check_open("encoded into");
  check_devices(*kept);
  do_encode(std::move(call));
  for (const auto& images : {kept->loss.images, kept->gradient.images}) {
    if (images != nullptr) images->set_writer(progress_);
  }
  for (const auto& state : kept->destination_states) state->values = kept->descriptor.parameters;
}

std::shared_ptr<ImageBatch> CommandBuffer::encode(LossCall call, ResultAllocator allocator) {
  const LossCall kept = call;
  const std::lock_guard lock(mutex_);
  check_open("encoded into");
  check_devices(*kept);
  auto results = do_encode(std::move(call), allocator);
  results->set_writer(progress_);
  for (const auto& state : kept->destination_states) state->values = kept->descriptor.parameters;
  return results;
}

std::shared_ptr<ImageBatch> CommandBuffer::do_encode(LossCall, ResultAllocator) {
  throw StateError("allocator must be None on the device " + device_->name() +
                   ", whose kernels make no images of their own");
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
  std::vector<std::function<void()>> dropped;
  {
    const std::lock_guard lock(mutex_);
    if (progress_->discarded || status() >= CommandBufferStatus::committed) return;
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

void CommandBuffer::set_result(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  progress_->error = error;
  progress_->status = error ? CommandBufferStatus::error : CommandBufferStatus::completed;
}

void CommandBuffer::finish() {
  const auto self = shared_from_this();  // the last handler may drop the caller's reference
  std::vector<std::function<void()>> handlers;
  {
    const std::lock_guard lock(mutex_);
    handlers.swap(handlers_);
    handler_thread_ = std::this_thread::get_id();
  }
  for (const auto& handler : handlers) handler();
  handlers.clear();
  {
    const std::lock_guard lock(mutex_);
    handler_thread_ = {};
    finished_ = true;
  }
  finished_changed_.notify_all();
}

void CommandBuffer::check_may_wait() const {
  const std::lock_guard lock(mutex_);
  if (status() < CommandBufferStatus::committed) {
    throw StateError("command_buffer must be committed before it is waited for");
  }
  if (handler_thread_ == std::this_thread::get_id()) {
    throw StateError("command_buffer must not be waited for inside its own completed handler");
  }
}

bool CommandBuffer::finished_within(double seconds) {
  constexpr double kForever = 1e9;  // more seconds would overflow the clock's count
  check_may_wait();
  do_help();
  std::unique_lock lock(mutex_);
  const auto finished = [this] { return finished_; };
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

std::pair<std::uintptr_t, std::uintptr_t> ImageBatch::extent(std::int64_t image) const {
  if (const std::byte* memory = image_data(image)) {
    const auto begin = reinterpret_cast<std::uintptr_t>(memory);
    return {begin, begin + static_cast<std::uintptr_t>(descriptor().image_bytes())};
  }
  const auto begin = reinterpret_cast<std::uintptr_t>(native_handle(image));
  return {begin, begin + 1};
}

void ImageBatch::set_writer(const std::shared_ptr<const Progress>& writer) {
  const std::lock_guard lock(mutex_);
  writer_ = writer;
}

void ImageBatch::check_usable() const {
  const std::lock_guard lock(mutex_);
  if (writer_ == nullptr) return;
  if (writer_->discarded) {
    throw StateError("the command buffer that should have written these images was discarded");
  }
  if (writer_->status == CommandBufferStatus::error) std::rethrow_exception(writer_->error);
}

void ImageBatch::check_readable() const {
  if (const std::string why = unreadable(); !why.empty()) throw StateError(why);
  check_usable();
  const std::lock_guard lock(mutex_);
  if (writer_ == nullptr || writer_->status == CommandBufferStatus::completed) return;
  throw StateError(
      "the command buffer that writes these images has not completed: commit it and wait");
}

std::string ImageBatch::label(std::int64_t image) const {
  const std::lock_guard lock(mutex_);
  const auto found = labels_.find(image);
  return found == labels_.end() ? std::string() : found->second;
}

void ImageBatch::set_label(std::int64_t image, const std::string& label) {
  const std::lock_guard lock(mutex_);
  if (label.empty()) {
    labels_.erase(image);
  } else {
    labels_[image] = label;
  }
}

}  // namespace mpsnn_loss
