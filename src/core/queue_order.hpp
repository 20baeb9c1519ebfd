// The order of a queue's command buffers: each has its place from enqueue on, and its turn once it
// is committed and all before it have been taken.
#pragma once

#include <deque>
#include <memory>
#include <mutex>

#include "core/backend.hpp"

namespace mpsnn_loss {

class QueueOrder {
 public:
  void add(CommandBuffer* buffer);
  /// Gives up the place of a buffer that will not be committed.
  void remove(const CommandBuffer* buffer);
  /// From now on the order holds the buffer, until it is taken.
  void commit(std::shared_ptr<CommandBuffer> buffer);
  /// The buffer whose turn it is, or null.
  std::shared_ptr<CommandBuffer> take();

 private:
  struct Place {
    CommandBuffer* buffer;
    std::shared_ptr<CommandBuffer> committed;  // null until commit
  };

  std::mutex mutex_;
  std::deque<Place> places_;
};

}  // namespace mpsnn_loss
