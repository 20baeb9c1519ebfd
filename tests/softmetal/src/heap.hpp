// The memory of the temporary objects of one command buffer, or of a chain of them that
// commitAndContinue made.
#pragma once
#import <Metal/Metal.h>

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace softmetal {

struct BufferState;

class Heap {
 public:
  ~Heap();
  /// Keeps a temporary image or state until its buffer is committed.
  void keep_until_commit(id temporary);
  /// Keeps the storage of a temporary until the work has completed.
  void keep_until_completed(id texture);
  void release_temporaries();
  void release_storage();

  /// The buffer that this memory belongs to now; null once it has been committed or dropped.
  void set_buffer(BufferState* buffer);
  /// Calls `use` with the current buffer, if there is one.
  void with_buffer(const std::function<void(BufferState&)>& use);

 private:
  std::mutex mutex_;
  std::vector<id> temporaries_, storage_;
  BufferState* buffer_ = nullptr;
};

}  // namespace softmetal
