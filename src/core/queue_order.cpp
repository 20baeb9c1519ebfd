#include "core/queue_order.hpp"

#include <algorithm>
#include <utility>

namespace mpsnn_loss {

void QueueOrder::add(CommandBuffer* buffer) {
  const std::lock_guard lock(mutex_);
  places_.push_back({buffer, nullptr});
}

void QueueOrder::remove(const CommandBuffer* buffer) {
  const std::lock_guard lock(mutex_);
  std::erase_if(places_, [buffer](const Place& place) { return place.buffer == buffer; });
}

void QueueOrder::commit(std::shared_ptr<CommandBuffer> buffer) {
  const std::lock_guard lock(mutex_);
  const auto place = std::find_if(places_.begin(), places_.end(),
                                  [&](const Place& p) { return p.buffer == buffer.get(); });
  place->committed = std::move(buffer);
}

std::shared_ptr<CommandBuffer> QueueOrder::take() {
  const std::lock_guard lock(mutex_);
  if (places_.empty() || places_.front().committed == nullptr) return nullptr;
  auto buffer = std::move(places_.front().committed);
  places_.pop_front();
  return buffer;
}

}  // namespace mpsnn_loss
