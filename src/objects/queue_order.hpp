// The order of a queue's command buffers: each has its place from enqueue on, and its turn once it
// is committed and all before it have been taken.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "objects/device.hpp"

namespace mpsnn_loss {

class QueueOrder {
 public:
  using Place = std::uint64_t;

  /// The last place, for a buffer that is still open.
  Place add(CommandBuffer* buffer);
  /// Gives up the place of a buffer that will not be committed.
  void remove(Place place) noexcept;
  /// From now on the order holds the buffer, until it is taken.
  void commit(Place place, std::shared_ptr<CommandBuffer> buffer) noexcept;
  /// The buffer whose turn it is, or null; null too where it may not begin, which is asked only
  /// where there is one.
  template <class MayBegin>
  std::shared_ptr<CommandBuffer> take(MayBegin may_begin) noexcept {
    const std::lock_guard lock(mutex_);
    const auto first = places_.begin();
    if (first == places_.end() || first->second.committed == nullptr) return nullptr;
    if (!may_begin()) return nullptr;
    auto buffer = std::move(first->second.committed);
    spare_ = places_.extract(first);
    return buffer;
  }
  /// Whether there is one.
  bool is_ready() const noexcept;
  /// The open buffer that all others wait for; null where there is none.
  std::shared_ptr<CommandBuffer> gate() const noexcept;

 private:
  struct Holder {
    CommandBuffer* buffer;
    std::shared_ptr<CommandBuffer> committed;  // null until commit
  };

  mutable std::mutex mutex_;
  std::map<Place, Holder> places_;
  std::map<Place, Holder>::node_type spare_;  // of the last that was taken
  Place next_ = 0;
};

}  // namespace mpsnn_loss
