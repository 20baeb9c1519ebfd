// Rules of lifetimes, devices and arguments.
#include "scene.hpp"

namespace {

void corpses() {
  Scene s;
  MPSImage* image = [[MPSImage alloc] initWithDevice:s.device imageDescriptor:describe(s.shape)];
  [image release];
  breaks("used_after_release", [&] { [image width]; });
  breaks("used_after_release", [&] { [image release]; });
  breaks("used_after_release", [&] { [image retain]; });
  MPSCNNLossDescriptor* descriptor = nil;
  @autoreleasepool {
    descriptor = [MPSCNNLossDescriptor cnnLossDescriptorWithType:MPSCNNLossTypeLog
                                                   reductionType:MPSCNNReductionTypeSum];
  }
  breaks("used_after_release", [&] { descriptor.weight = 2; });
}

void leak() {
  Scene s;
  [make_image(s.device, {}) retain];
}

void over_release() {
  Scene s;
  [make_image(s.device, {}) release];
}

void unretained() {
  Scene s;
  const auto run_with_dropped_image = [&](bool retained) {
    id<MTLCommandBuffer> buffer =
        retained ? s.buffer() : [s.queue.get() commandBufferWithUnretainedReferences];
    check(buffer.retainedReferences == retained, "retainedReferences");
    @autoreleasepool {
      MPSImage* gone = make_image(s.device, s.shape);
      [s.loss.get() encodeBatchToCommandBuffer:buffer
                                  sourceImages:@[ [s.predictions objectAtIndex:0] ]
                                        labels:@[ [s.labels objectAtIndex:0] ]
                                       weights:nil
                             destinationStates:nil
                             destinationImages:@[ gone ]];
    }
    [buffer commit];
    [buffer waitUntilCompleted];
    return buffer;
  };
  breaks("resource_gone", [&] {
    id<MTLCommandBuffer> buffer = run_with_dropped_image(false);
    check(buffer.status == MTLCommandBufferStatusError, "status");
    check(buffer.error.code == MTLCommandBufferErrorInvalidResource, "code");
  });
  allowed("an ordinary buffer keeps textures", [&] {
    check(run_with_dropped_image(true).status == MTLCommandBufferStatusCompleted, "status");
  });
}

void nils() {
  Scene s;
  id nothing = nil;  // a variable: the compiler objects to a literal
  id<MTLCommandBuffer> buffer = s.buffer();
  MPSImage* image = [s.predictions objectAtIndex:0];
  breaks("nil_argument", [&] { s.forward(nothing); });
  breaks("nil_argument", [&] { [image synchronizeOnCommandBuffer:nothing]; });
  breaks("nil_argument", [&] {
    [s.loss.get() encodeBatchToCommandBuffer:buffer
                                sourceImages:s.predictions
                                      labels:nothing
                                     weights:nil
                           destinationStates:nil
                           destinationImages:s.losses];
  });
  breaks("nil_argument", [&] {
    [s.loss_gradient.get() encodeBatchToCommandBuffer:buffer
                                      sourceGradients:s.gradients
                                         sourceImages:nothing
                                               labels:s.labels
                                              weights:nil
                                         sourceStates:nil
                                 destinationGradients:s.results];
  });
  breaks("nil_argument", [&] {
    [s.loss.get() encodeBatchToCommandBuffer:buffer
                                sourceImages:nothing
                                      labels:s.labels
                                     weights:nil
                           destinationStates:nullptr
                 destinationStateIsTemporary:NO];
  });
  breaks("nil_argument",
         [&] { [[MPSImage alloc] initWithDevice:nothing imageDescriptor:describe({})]; });
  breaks("nil_argument", [&] {
    [[MPSImage alloc] initWithDevice:s.device imageDescriptor:(MPSImageDescriptor*)nothing];
  });
  breaks("nil_argument", [&] { [[MPSImage alloc] initWithTexture:nothing featureChannels:1]; });
  breaks("nil_argument",
         [&] { [[MPSNNForwardLoss alloc] initWithDevice:s.device lossDescriptor:nothing]; });
  breaks("nil_argument",
         [&] { [[MPSNNLossGradient alloc] initWithDevice:nothing lossDescriptor:s.descriptor]; });
  breaks("nil_argument", [&] { s.loss.get().padding = nothing; });
  breaks("nil_argument", [&] { s.loss.get().destinationImageAllocator = nothing; });
  breaks("nil_argument", [&] { [MPSCommandBuffer commandBufferWithCommandBuffer:nothing]; });
  breaks("nil_argument", [&] { [image readBytes:(void*)nothing dataLayout:{} imageIndex:0]; });
  breaks("nil_argument", [&] {
    [s.loss.get() resultStateBatchForSourceImage:s.predictions
                                    sourceStates:nil
                                destinationImage:nothing];
  });
}

void devices() {
  softmetal_set_devices(2);
  Held<NSArray*> all(MTLCopyAllDevices());
  softmetal_set_devices(1);
  check([all.get() count] == 2, "two devices");
  id<MTLDevice> second = [all.get() objectAtIndex:1];
  Scene s;
  check(s.device.get() == [all.get() objectAtIndex:0], "the same device is the same object");
  check(s.device.get().registryID != second.registryID, "registryID");
  Held<id<MTLCommandQueue>> other_queue([second newCommandQueue]);
  breaks("mixed_devices", [&] { s.forward([other_queue.get() commandBuffer]); });
  breaks("mixed_devices", [&] {
    [[s.losses objectAtIndex:0] synchronizeOnCommandBuffer:[other_queue.get() commandBuffer]];
  });
  s.labels = make_batch(second, 2, s.shape, 0.5f);
  breaks("mixed_devices", [&] { s.forward(s.buffer()); });
  breaks("mixed_devices", [&] {
    id<MTLBlitCommandEncoder> encoder = [s.buffer() blitCommandEncoder];
    struct End {
      id<MTLBlitCommandEncoder> encoder;
      ~End() { [encoder endEncoding]; }
    } end{encoder};
    [encoder synchronizeResource:[[s.labels objectAtIndex:0] texture]];
  });
}

void device_facts() {
  Held<id<MTLDevice>> device(MTLCreateSystemDefaultDevice());
  id<MTLDevice> d = device;
  check(d.name.length > 0 && d.registryID != 0 && !d.isHeadless && !d.isRemovable, "facts");
  check(MPSSupportsMTLDevice(d) && !MPSSupportsMTLDevice(nil), "MPSSupportsMTLDevice");
  check(MPSGetPreferredDevice(MPSDeviceOptionsDefault) == d, "MPSGetPreferredDevice");
  check([d supportsFamily:MTLGPUFamilyMac2], "family");
  const MTLStorageMode mode = d.hasUnifiedMemory ? MTLStorageModeShared : MTLStorageModeManaged;
  check(make_image(d, {}).texture.storageMode == mode, "default storage of images");
}

const Registration all[] = {
    {"use after the last release", corpses},
    {"seeded leak", leak},
    {"seeded over-release", over_release},
    {"retainedReferences = NO keeps nothing alive", unretained},
    {"nil where the header says nonnull", nils},
    {"two devices", devices},
    {"what a device says of itself", device_facts},
};

}  // namespace
