// What is inside an MPSState: the loss state that a forward encode fills.
#pragma once
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <memory>
#include <mutex>

#include "heap.hpp"

namespace softmetal {

/// The dynamic properties of a loss, which a state carries from the forward to the gradient encode.
struct LossParameters {
  float weight = 1, label_smoothing = 0, epsilon = 1e-7f, delta = 1;
  bool operator==(const LossParameters&) const = default;
};

}  // namespace softmetal

struct SoftmetalState {
  std::mutex mutex;
  id<MTLDevice> device = nil;
  bool made_by_loss = false;
  bool filled = false;
  softmetal::LossParameters made_with;    // properties of the forward kernel when it made the state
  softmetal::LossParameters values;       // and when it was encoded
  std::shared_ptr<softmetal::Heap> heap;  // of a temporary
  NSUInteger read_count = 0;              // of a temporary

  ~SoftmetalState() { [device release]; }
  bool is_temporary() const { return heap != nullptr; }
};

@interface MPSState (Inside)
- (instancetype)softmetalInitWithDevice:(id<MTLDevice>)device;
@end

namespace softmetal {

/// A state for one image of a forward loss. `heap` makes it a temporary with resources.
MPSState* make_loss_state(id<MTLDevice> device, const LossParameters& made_with,
                          const std::shared_ptr<Heap>& heap);
bool may_use_temporary(MPSState* state, const std::shared_ptr<Heap>& heap, const char* what);
void lower_read_count(MPSState* state);

}  // namespace softmetal
