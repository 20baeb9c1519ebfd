// Archives and copies of kernels.
#include "objc_guard.hpp"
#include "scene.hpp"

namespace {

NSData* archive(id object) {
  NSError* error = nil;
  NSData* data = [NSKeyedArchiver archivedDataWithRootObject:object
                                       requiringSecureCoding:YES
                                                       error:&error];
  check(data.length > 100 && !error, "an archive");
  return data;
}

template <class T>
T* unarchive(NSData* data, id<MTLDevice> device) {
  NSError* error = nil;
  return [MPSKeyedUnarchiver unarchivedObjectOfClass:[T class]
                                            fromData:data
                                              device:device
                                               error:&error];
}

void round_trip() {
  Scene s(MPSCNNLossTypeHuber, MPSCNNReductionTypeMean, true);
  MPSNNLossGradient* g = s.loss_gradient;
  g.weight = 2.5f;
  g.labelSmoothing = 0.125f;
  g.epsilon = 0.5f;
  g.delta = 3;
  g.computeLabelGradients = YES;
  g.label = @"a label";
  g.options = MPSKernelOptionsVerbose;
  g.primaryOffset = {1, -2, 3};
  g.clipRect = MTLRegionMake2D(1, 2, 3, 4);
  g.secondaryStrideInPixelsY = 7;
  g.destinationImageAllocator = [MPSImage defaultAllocator];
  g.padding = [MPSNNDefaultPadding paddingWithMethod:MPSNNPaddingMethodSizeFull];
  Held<MPSNNLossGradient*> copy([g copy]);
  for (MPSNNLossGradient* k in
       @[ copy.get(), unarchive<MPSNNLossGradient>(archive(g), s.device) ]) {
    check(k != g && k.device == s.device.get(), "another kernel, same device");
    check(k.weight == 2.5f && k.labelSmoothing == 0.125f && k.epsilon == 0.5f && k.delta == 3,
          "four");
    check(k.computeLabelGradients && [k.label isEqual:@"a label"] && k.options == 16, "others");
    check(k.lossType == MPSCNNLossTypeHuber && k.reductionType == 2 && k.reduceAcrossBatch,
          "fixed");
    check(k.primaryOffset.y == -2 && k.clipRect.size.height == 4, "geometry");
    check(k.secondaryStrideInPixelsY == 7 && [k.padding paddingMethod] == 32, "sizing");
    check(k.destinationImageAllocator == [MPSImage defaultAllocator], "allocator");
  }
  MPSNNForwardLoss* loss = s.loss;
  loss.weight = 4;
  loss.offset = {0, 1, 0};
  Held<MPSNNForwardLoss*> other([loss copyWithZone:nil device:s.device]);
  for (MPSNNForwardLoss* k in
       @[ other.get(), unarchive<MPSNNForwardLoss>(archive(loss), s.device) ]) {
    check(k.weight == 4 && k.offset.y == 1 && k.lossType == MPSCNNLossTypeHuber, "forward loss");
  }
}

void refused() {
  Scene s;
  NSData* data = archive(s.loss_gradient.get());
  NSError* error = nil;
  id wrong = [MPSKeyedUnarchiver unarchivedObjectOfClass:[MPSNNForwardLoss class]
                                                fromData:data
                                                  device:s.device
                                                   error:&error];
  check(!wrong && error, "another class");
  NSData* half = [data subdataWithRange:NSMakeRange(0, data.length / 2)];
  const std::string raised = exception_of(
      [&] { check(!unarchive<MPSNNLossGradient>(half, s.device), "half an archive"); });
  check(!raised.empty(), "truncated data raises");
  check([NSKeyedUnarchiver unarchivedObjectOfClass:[MPSNNLossGradient class]
                                          fromData:data
                                             error:&error] != nil,
        "without a device: the default one");
}

const Registration all[] = {
    {"every property survives an archive and a copy", round_trip},
    {"archives that are not right", refused},
};

}  // namespace
