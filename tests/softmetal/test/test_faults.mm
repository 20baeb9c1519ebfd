// Every fault does what it says.
#include <memory>

#include "objc_guard.hpp"
#include "scene.hpp"

namespace {

template <class T>
void is_nil(const char* fault, T&& make) {
  WithFault on(fault);
  check(make() == nil, std::string(fault) + ": nil");
  check(softmetal_fault_strikes(fault) > 0, std::string(fault) + ": it struck");
}

void nils() {
  Scene s;
  is_nil("no_device", [] { return MTLCreateSystemDefaultDevice(); });
  is_nil("no_device", [] { return MPSGetPreferredDevice(MPSDeviceOptionsDefault); });
  is_nil("device_unsupported", [&] {
    check(!MPSSupportsMTLDevice(s.device), "not supported");
    return [[MPSNNForwardLoss alloc] initWithDevice:s.device lossDescriptor:s.descriptor];
  });
  is_nil("queue_is_nil", [&] { return [s.device.get() newCommandQueue]; });
  is_nil("command_buffer_is_nil", [&] { return s.buffer(); });
  is_nil("kernel_is_nil", [&] {
    return [[MPSNNLossGradient alloc] initWithDevice:s.device lossDescriptor:s.descriptor];
  });
  is_nil("kernel_is_nil", [&] { return [[MPSNNInitialGradient alloc] initWithDevice:s.device]; });
  is_nil("descriptor_is_nil", [] {
    return [MPSCNNLossDescriptor cnnLossDescriptorWithType:MPSCNNLossTypeLog
                                             reductionType:MPSCNNReductionTypeSum];
  });
  is_nil("image_is_nil", [&] { return make_image(s.device, {}); });
  is_nil("texture_is_nil", [&] { return make_image(s.device, {}).texture; });
  is_nil("result_state_is_nil", [&] {
    return [s.loss.get() resultStateBatchForSourceImage:s.predictions
                                           sourceStates:nil
                                       destinationImage:s.losses];
  });
  is_nil("copy_is_nil", [&] { return [s.loss.get() copyWithZone:nil device:nil]; });
}

void archives() {
  Scene s;
  NSError* error = nil;
  const auto archive = [&] {
    return [NSKeyedArchiver archivedDataWithRootObject:s.loss_gradient.get()
                                 requiringSecureCoding:YES
                                                 error:&error];
  };
  is_nil("archive_is_nil", archive);
  check(error != nil, "with an error");
  s.loss_gradient.get().weight = 7;
  NSData* data = archive();
  const auto unarchive = [&] {
    error = nil;
    return (MPSNNLossGradient*)[MPSKeyedUnarchiver unarchivedObjectOfClass:[MPSNNLossGradient class]
                                                                  fromData:data
                                                                    device:s.device
                                                                     error:&error];
  };
  is_nil("unarchive_is_nil", unarchive);
  check(error == nil, "without an error");
  check(unarchive().weight == 7, "it is in there");
  WithFault forget("archive_forgets_properties"), forget_copies("copy_forgets_properties");
  check(unarchive().weight == 1, "forgotten");
  Held<MPSNNLossGradient*> copy([s.loss_gradient.get() copy]);
  check(copy.get().weight == 1 && copy.get().lossType == s.descriptor.lossType, "forgotten too");
  WithFault raising("unarchive_raises");
  check(exception_of([&] { unarchive(); }) == "NSInvalidUnarchiveOperationException", "raises");
}

void encoding() {
  Scene s;
  {
    WithFault raising("encode_raises");
    check(exception_of([&] { s.forward(s.buffer()); }) == "NSInternalInconsistencyException",
          "raise");
  }
  WithFault no_memory("texture_is_nil", 1, 0, 1);
  check(exception_of([&] { s.forward(s.buffer()); }) == "NSMallocException", "no memory");
}

void errors() {
  Scene s;
  for (int code : {1, 2, 3, 4, 7, 8, 9, 10, 11, 12}) {
    WithFault failing("buffer_error", code, 0, 1);
    id<MTLCommandBuffer> buffer = s.buffer();
    __block NSInteger seen = 0;
    [buffer addCompletedHandler:^(id<MTLCommandBuffer> done) {
      seen = done.error.code;
    }];
    s.forward(buffer);
    s.finish(buffer);
    check(buffer.status == MTLCommandBufferStatusError, "status");
    check(buffer.error.code == code && seen == code, "code");
    check([buffer.error.domain isEqual:MTLCommandBufferErrorDomain], "domain");
    check(buffer.error.localizedDescription.length > 5, "words");
    check(buffer.GPUEndTime >= buffer.GPUStartTime, "times");
  }
  WithFault silent("buffer_error_without_nserror");
  id<MTLCommandBuffer> buffer = s.buffer();
  s.finish(buffer);
  check(buffer.status == MTLCommandBufferStatusError && !buffer.error, "error without an NSError");
}

void logging() {
  Scene s;
  WithFault quiet("log_and_do_nothing");
  id<MTLCommandBuffer> buffer = s.buffer();
  s.labels = make_batch(s.device, 2, {1, 1, 1}, 1);
  const std::string raised = exception_of([&] { s.forward(buffer); });
  check(raised.empty(), "nothing raised");
  check(softmetal_violations_of("operand_shape") == 1, "but recorded");
  [buffer commit];
  [buffer waitUntilCompleted];
  check(buffer.status == MTLCommandBufferStatusCompleted, "and completed");
  softmetal_clear_violations();
}

void dropped() {
  Scene s;
  int runs = 0;
  int* const counted = &runs;
  const auto drop_one = [&] {
    @autoreleasepool {
      [s.buffer() addCompletedHandler:^(id<MTLCommandBuffer> buffer) {
        *counted += buffer.status == MTLCommandBufferStatusNotEnqueued;
      }];
    }
  };
  drop_one();
  check(runs == 0, "do not run");
  WithFault on("run_handlers_of_dropped");
  drop_one();
  check(runs == 1, "or run");
}

struct AsksWhenItGoes {
  id<MTLCommandBuffer> buffer;
  ~AsksWhenItGoes() { (void)buffer.status; }
};

void questions() {
  Scene s;
  WithFault quiet("log_and_do_nothing");
  @autoreleasepool {
    id<MTLCommandBuffer> buffer = s.buffer();
    const auto asks = std::shared_ptr<AsksWhenItGoes>(new AsksWhenItGoes{buffer});
    [buffer addCompletedHandler:^(id<MTLCommandBuffer>) {
      (void)asks;
    }];
  }
  check(softmetal_violations_of("used_after_release") == 1, "by what its block owned");
  softmetal_clear_violations();
}

void formats() {
  Scene s;
  WithFault on("results_follow_source_format");
  MPSImageDescriptor* d =
      [s.loss.get() destinationImageDescriptorForSourceImages:@[ [s.predictions objectAtIndex:0] ]
                                                 sourceStates:nil];
  check(d.channelFormat == float32, "float32");
}

void windows() {
  Scene s;
  WithFault second("image_is_nil", 1, 1, 1);
  check(make_image(s.device, {}) != nil, "the first is spared");
  check(make_image(s.device, {}) == nil, "the second is struck");
  check(make_image(s.device, {}) != nil, "the third is spared");
  check(softmetal_set_fault("no such fault", 1) == 0, "unknown name");
}

void counting() {
  Scene s(MPSCNNLossTypeMeanSquaredError, MPSCNNReductionTypeNone, false, {1, 1, 1000});
  softmetal_reset_counters();
  id<MTLCommandBuffer> buffer = s.buffer();
  s.gradient(buffer);
  s.finish(buffer);
  check(softmetal_slices_written() == 500, "two images of 250 slices");
  check(softmetal_encodes() == 1 && softmetal_commits() == 1, "one encode, one commit");
  make_image(s.device, {});
  check(softmetal_images_made() == 1, "one image");
  check(softmetal_live_objects("MPSNNForwardLoss") == 1, "one forward loss");
  check(softmetal_live_objects("MPSImage") > 10 && softmetal_live_objects(nullptr) > 20, "more");
}

const Registration all[] = {
    {"what can be nil", nils},
    {"archives", archives},
    {"encodes that raise", encoding},
    {"command buffers that fail", errors},
    {"validation that only logs", logging},
    {"a buffer that goes is asked nothing", questions},
    {"handlers of a dropped buffer", dropped},
    {"results that follow the format of the source", formats},
    {"faults strike where they are told to", windows},
    {"counters", counting},
};

}  // namespace
