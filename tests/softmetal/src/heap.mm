#include "heap.hpp"

namespace softmetal {

Heap::~Heap() {
  release_temporaries();
  release_storage();
}

void Heap::keep_until_commit(id temporary) {
  std::lock_guard lock(mutex_);
  temporaries_.push_back([temporary retain]);
}

void Heap::keep_until_completed(id texture) {
  std::lock_guard lock(mutex_);
  storage_.push_back([texture retain]);
}

// The releases run without the lock: a last release judges the temporary, which may come back here.
void Heap::release_temporaries() {
  std::vector<id> gone;
  {
    std::lock_guard lock(mutex_);
    gone.swap(temporaries_);
  }
  for (id object : gone) [object release];
}

void Heap::release_storage() {
  std::vector<id> gone;
  {
    std::lock_guard lock(mutex_);
    gone.swap(storage_);
  }
  for (id object : gone) [object release];
}

void Heap::set_buffer(BufferState* buffer) {
  std::lock_guard lock(mutex_);
  buffer_ = buffer;
}

void Heap::with_buffer(const std::function<void(BufferState&)>& use) {
  std::lock_guard lock(mutex_);
  if (buffer_) use(*buffer_);
}

}  // namespace softmetal
