// Memory that can be made to run out, for the whole test program.
#pragma once

namespace mpsnn_loss::test {

/// While it lives, allocations fail from the given one on, counted from 0, on every thread: that
/// one alone, or all after it too.
class FailingMemory {
 public:
  enum class How { once, from_then_on };

  FailingMemory(long allocation, How how);
  ~FailingMemory();
  FailingMemory(const FailingMemory&) = delete;
  FailingMemory& operator=(const FailingMemory&) = delete;
  /// Whether the allocation that fails was asked for.
  bool has_failed() const;
};

}  // namespace mpsnn_loss::test
