// Functions on batches: once for every different object, however often it is in the batch.
#include "image.hpp"

#include "judge.hpp"

namespace {

template <class Function>
NSUInteger for_each_unique(NSArray* batch, Function&& use) {
  NSUInteger unique = 0;
  for (NSUInteger i = 0; i < batch.count; ++i) {
    id object = [batch objectAtIndex:i];
    if ([batch indexOfObjectIdenticalTo:object] != i) continue;
    ++unique;
    if (!use(object, i)) break;
  }
  return unique;
}

/// The count after adding `amount`, which stops at 0.
NSUInteger moved(NSUInteger count, NSInteger amount) {
  const NSInteger sum = static_cast<NSInteger>(count) + amount;
  return sum > 0 ? static_cast<NSUInteger>(sum) : 0;
}

}  // namespace

NSUInteger MPSImageBatchIncrementReadCount(MPSImageBatch* batch, NSInteger amount) {
  return for_each_unique(batch, [&](MPSImage* image, NSUInteger) {
    if (image->_softmetal->is_temporary()) {
      MPSTemporaryImage* temporary = (MPSTemporaryImage*)image;
      const NSUInteger count = temporary.readCount;
      if (count > 0) temporary.readCount = moved(count, amount);
    }
    return true;
  });
}

void MPSImageBatchSynchronize(MPSImageBatch* batch, id<MTLCommandBuffer> cmdBuf) {
  for_each_unique(batch, [&](MPSImage* image, NSUInteger) {
    [image synchronizeOnCommandBuffer:cmdBuf];
    return true;
  });
}

NSUInteger MPSImageBatchResourceSize(MPSImageBatch* batch) {
  NSUInteger size = 0;
  for_each_unique(batch, [&](MPSImage* image, NSUInteger) {
    size += [image resourceSize];
    return true;
  });
  return size;
}

NSInteger MPSImageBatchIterate(MPSImageBatch* batch,
                               NSInteger (^iterator)(MPSImage* image, NSUInteger index)) {
  NSInteger last = NSIntegerMin;
  for_each_unique(batch, [&](MPSImage* image, NSUInteger index) {
    last = iterator(image, index);
    return last == NSIntegerMin;
  });
  return last;
}

NSUInteger MPSStateBatchIncrementReadCount(MPSStateBatch* batch, NSInteger amount) {
  return for_each_unique(batch, [&](MPSState* state, NSUInteger) {
    if (state.isTemporary && state.readCount > 0) {
      state.readCount = moved(state.readCount, amount);
    }
    return true;
  });
}

void MPSStateBatchSynchronize(MPSStateBatch* batch, id<MTLCommandBuffer> cmdBuf) {
  for_each_unique(batch, [&](MPSState* state, NSUInteger) {
    [state synchronizeOnCommandBuffer:cmdBuf];
    return true;
  });
}

NSUInteger MPSStateBatchResourceSize(MPSStateBatch* batch) {
  NSUInteger size = 0;
  for_each_unique(batch, [&](MPSState* state, NSUInteger) {
    size += [state resourceSize];
    return true;
  });
  return size;
}
