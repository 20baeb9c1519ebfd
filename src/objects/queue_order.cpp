#include "objects/queue_order.hpp"

#include <utility>

namespace mpsnn_loss {

QueueOrder::Place QueueOrder::add(CommandBuffer* buffer) {
  const std::lock_guard lock(mutex_);
  if (spare_.empty()) {
    places_.emplace_hint(places_.end(), next_, Holder{buffer, nullptr});
  } else {
    spare_.key() = next_;
    spare_.mapped().buffer = buffer;
    places_.insert(places_.end(), std::move(spare_));
  }
  return next_++;
}

void QueueOrder::remove(Place place) noexcept {
  const std::lock_guard lock(mutex_);
  places_.erase(place);
}

void QueueOrder::commit(Place place, std::shared_ptr<CommandBuffer> buffer) noexcept {
  const std::lock_guard lock(mutex_);
  places_.find(place)->second.committed = std::move(buffer);
}

bool QueueOrder::is_ready() const noexcept {
  const std::lock_guard lock(mutex_);
  return !places_.empty() && places_.begin()->second.committed != nullptr;
}

std::shared_ptr<CommandBuffer> QueueOrder::gate() const noexcept {
  const std::lock_guard lock(mutex_);
  if (places_.empty() || places_.begin()->second.committed != nullptr) return nullptr;
  return places_.begin()->second.buffer->self();
}

}  // namespace mpsnn_loss
