#include "failing_memory.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace mpsnn_loss::test {
namespace {

std::atomic<long> left{-1};  // successful allocations; below 0: any number
std::atomic<bool> armed{false}, failed{false}, only_once{false};

bool fails() {
  if (!armed) return false;
  if (left-- > 0) return false;
  return !failed.exchange(true) || !only_once;
}

void* allocate(std::size_t size, std::size_t alignment) {
  if (fails()) throw std::bad_alloc();
  // Blocks of std::malloc are aligned for everything but vectors.
  void* const memory =
      alignment <= alignof(std::max_align_t)
          ? std::malloc(size == 0 ? 1 : size)
          : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

FailingMemory::FailingMemory(long allocation, How how) {
  left = allocation;
  only_once = how == How::once;
  failed = false;
  armed = true;
}
FailingMemory::~FailingMemory() { armed = false; }
bool FailingMemory::has_failed() const { return failed; }

}  // namespace mpsnn_loss::test

// The other forms of the library call these.
void* operator new(std::size_t size) {
  return mpsnn_loss::test::allocate(size, alignof(std::max_align_t));
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return mpsnn_loss::test::allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
