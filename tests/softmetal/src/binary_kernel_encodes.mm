// The encodes that a binary kernel inherits. None of them has labels, so none works for a loss.
#include "judge.hpp"
#include "kernel.hpp"

namespace {

void refuse(MPSCNNBinaryKernel* kernel) {
  softmetal::broken(softmetal::rules::wrong_encode, "an inherited encode of %s",
                    object_getClassName(kernel));
}

}  // namespace

@implementation MPSCNNBinaryKernel (Encodes)

- (void)encodeToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                 primaryImage:(MPSImage*)primaryImage
               secondaryImage:(MPSImage*)secondaryImage
             destinationImage:(MPSImage*)destinationImage {
  (void)commandBuffer, (void)primaryImage, (void)secondaryImage, (void)destinationImage;
  refuse(self);
}

- (void)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                     primaryImages:(MPSImageBatch*)primaryImages
                   secondaryImages:(MPSImageBatch*)secondaryImages
                 destinationImages:(MPSImageBatch*)destinationImages {
  (void)commandBuffer, (void)primaryImages, (void)secondaryImages, (void)destinationImages;
  refuse(self);
}

- (MPSImage*)encodeToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                      primaryImage:(MPSImage*)primaryImage
                    secondaryImage:(MPSImage*)secondaryImage {
  (void)commandBuffer, (void)primaryImage, (void)secondaryImage;
  refuse(self);
  return nil;
}

- (MPSImageBatch*)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                               primaryImages:(MPSImageBatch*)primaryImages
                             secondaryImages:(MPSImageBatch*)secondaryImages {
  (void)commandBuffer, (void)primaryImages, (void)secondaryImages;
  refuse(self);
  return nil;
}

- (MPSState*)resultStateForPrimaryImage:(MPSImage*)primaryImage
                         secondaryImage:(MPSImage*)secondaryImage
                           sourceStates:(NSArray<MPSState*>*)sourceStates
                       destinationImage:(MPSImage*)destinationImage {
  (void)primaryImage, (void)secondaryImage, (void)sourceStates, (void)destinationImage;
  return nil;
}

- (MPSStateBatch*)resultStateBatchForPrimaryImage:(MPSImageBatch*)primaryImage
                                   secondaryImage:(MPSImageBatch*)secondaryImage
                                     sourceStates:(NSArray<MPSStateBatch*>*)sourceStates
                                 destinationImage:(MPSImageBatch*)destinationImage {
  (void)primaryImage, (void)secondaryImage, (void)sourceStates, (void)destinationImage;
  return nil;
}

- (MPSState*)temporaryResultStateForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                     primaryImage:(MPSImage*)primaryImage
                                   secondaryImage:(MPSImage*)secondaryImage
                                     sourceStates:(NSArray<MPSState*>*)sourceStates
                                 destinationImage:(MPSImage*)destinationImage {
  (void)commandBuffer, (void)primaryImage, (void)secondaryImage;
  (void)sourceStates, (void)destinationImage;
  return nil;
}

- (MPSStateBatch*)temporaryResultStateBatchForCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                               primaryImage:(MPSImageBatch*)primaryImage
                                             secondaryImage:(MPSImageBatch*)secondaryImage
                                               sourceStates:(NSArray<MPSStateBatch*>*)sourceStates
                                           destinationImage:(MPSImageBatch*)destinationImage {
  (void)commandBuffer, (void)primaryImage, (void)secondaryImage;
  (void)sourceStates, (void)destinationImage;
  return nil;
}

- (NSUInteger)encodingStorageSizeForPrimaryImage:(MPSImage*)primaryImage
                                  secondaryImage:(MPSImage*)secondaryImage
                                    sourceStates:(NSArray<MPSState*>*)sourceStates
                                destinationImage:(MPSImage*)destinationImage {
  (void)primaryImage, (void)secondaryImage, (void)sourceStates, (void)destinationImage;
  return 0;
}

- (NSUInteger)batchEncodingStorageSizeForPrimaryImage:(MPSImageBatch*)primaryImage
                                       secondaryImage:(MPSImageBatch*)secondaryImage
                                         sourceStates:(NSArray<MPSStateBatch*>*)sourceStates
                                     destinationImage:(MPSImageBatch*)destinationImage {
  (void)primaryImage, (void)secondaryImage, (void)sourceStates, (void)destinationImage;
  return 0;
}

@end
