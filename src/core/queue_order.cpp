#include "core/queue_order.hpp"

#include <utility>

namespace mpsnn_loss {

QueueOrder::Place QueueOrder::add() {
  const std::lock_guard lock(mutex_);
  places_.emplace_hint(places_.end(), next_, nullptr);
  return next_++;
}

void QueueOrder::remove(Place place) noexcept {
  const std::lock_guard lock(mutex_);
  places_.erase(place);
}

void QueueOrder::commit(Place place, std::shared_ptr<CommandBuffer> buffer) noexcept {
  const std::lock_guard lock(mutex_);
  places_.find(place)->second = std::move(buffer);
}

std::shared_ptr<CommandBuffer> QueueOrder::take() noexcept {
  const std::lock_guard lock(mutex_);
  const auto first = places_.begin();
  if (first == places_.end() || first->second == nullptr) return nullptr;
  auto buffer = std::move(first->second);
  places_.erase(first);
  return buffer;
}

bool QueueOrder::is_ready() const noexcept {
  const std::lock_guard lock(mutex_);
  return !places_.empty() && places_.begin()->second != nullptr;
}

}  // namespace mpsnn_loss
