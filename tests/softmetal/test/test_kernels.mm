// Rules of kernels and of what they are given.
#include <string.h>

#include <cmath>

#include "scene.hpp"

namespace {

void encode_and_finish(const Scene& s) {
  id<MTLCommandBuffer> buffer = s.buffer();
  s.forward(buffer);
  s.gradient(buffer);
  s.finish(buffer);
}

void changing() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  WithFault slow("encode_pause", 60000);
  breaks("kernel_changed_during_encode", [&] {
    InThread other([&] { s.forward(buffer); });
    slow.wait_for_strike();
    s.loss.get().weight = 2;
  });
  breaks("kernel_changed_during_encode", [&] {
    // A returning encode changes the offsets, so it is a change as well.
    InThread other([&] {
      s.loss.get().destinationImageAllocator = [MPSImage defaultAllocator];
      [s.loss.get() encodeBatchToCommandBuffer:s.buffer()
                                  sourceImages:s.predictions
                                        labels:s.labels
                                       weights:nil
                             destinationStates:nullptr
                   destinationStateIsTemporary:NO];
    });
    slow.wait_for_strike();
    (void)s.loss.get().weight;
  });
  s.loss.get().offset = {0, 0, 0};
  allowed("encodes of two threads into two buffers", [&] {
    InThread other([&] { s.forward(s.buffer()); });
    s.forward(s.buffer());
  });
}

void batches() {
  Scene s;
  NSArray* one = @[ [s.labels objectAtIndex:0] ];
  MPSImageBatch *const labels = s.labels, *const predictions = s.predictions,
                       *const losses = s.losses;
  const auto restore = [&] {
    s.labels = labels;
    s.predictions = predictions;
    s.losses = losses;
  };
  s.labels = one;
  breaks("batch_count", [&] { s.forward(s.buffer()); });
  restore();
  s.losses = one;
  breaks("batch_count", [&] { s.forward(s.buffer()); });
  restore();
  s.predictions = @[];
  breaks("empty_image", [&] { s.forward(s.buffer()); });
  restore();
  MPSImageDescriptor* d = describe(s.shape);
  d.numberOfImages = 2;
  MPSImage* two = [[[MPSImage alloc] initWithDevice:s.device imageDescriptor:d] autorelease];
  s.labels = @[ two, two ];
  breaks("number_of_images", [&] { s.forward(s.buffer()); });
  s.labels = @[ [labels objectAtIndex:0], make_image(s.device, s.shape, float16) ];
  breaks("batch_formats", [&] { s.forward(s.buffer()); });
  restore();
}

void shapes() {
  Scene s;
  const Shape other{2, 3, 4};
  s.labels = make_batch(s.device, 2, other, 1);
  breaks("operand_shape", [&] { s.forward(s.buffer()); });
  s.labels = make_batch(s.device, 2, s.shape, 1);
  s.weights = make_batch(s.device, 2, {2, 1, 5}, 1);
  breaks("operand_shape", [&] { s.forward(s.buffer()); });
  s.weights = make_batch(s.device, 2, {2, 3, 1}, 0.5f);
  breaks("weights_shape", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.finish(buffer);
    check_near(values_of([s.losses objectAtIndex:0])[9], 0.28125, 0, "broadcast all the same");
  });
  s.weights = nil;
  s.gradients = make_batch(s.device, 2, {2, 3, 1}, 1);
  breaks("operand_shape", [&] { s.gradient(s.buffer()); });
  s.gradients = make_batch(s.device, 2, s.shape, 1);
  s.results = make_batch(s.device, 2, other, 0);
  breaks("destination_shape", [&] { s.gradient(s.buffer()); });
  s.losses = make_batch(s.device, 2, {1, 1, 1}, 0);
  breaks("destination_shape", [&] { s.forward(s.buffer()); });
  Scene reduced(MPSCNNLossTypeHuber, MPSCNNReductionTypeSum);
  reduced.losses = make_batch(reduced.device, 2, reduced.shape, 0);
  breaks("destination_shape", [&] { reduced.forward(reduced.buffer()); });
  Held<MPSNNInitialGradient*> ones([[MPSNNInitialGradient alloc] initWithDevice:s.device]);
  breaks("destination_shape", [&] {
    [ones.get() encodeBatchToCommandBuffer:s.buffer()
                              sourceImages:s.predictions
                         destinationImages:s.losses];
  });
}

void aliases() {
  Scene s;
  s.results = @[ [s.predictions objectAtIndex:1], [s.results objectAtIndex:1] ];
  breaks("destination_aliases_source", [&] { s.gradient(s.buffer()); });
  s.results = @[ make_image(s.device, s.shape), [s.labels objectAtIndex:0] ];
  breaks("destination_aliases_source", [&] { s.gradient(s.buffer()); });
  MPSImage* again = [[[MPSImage alloc] initWithTexture:[[s.weights objectAtIndex:1] texture]
                                       featureChannels:5] autorelease];
  s.results = @[ make_image(s.device, s.shape), again ];
  breaks("destination_aliases_source", [&] { s.gradient(s.buffer()); });
  MPSImage* one = make_image(s.device, s.shape);
  s.results = @[ one, one ];
  breaks("destination_repeated", [&] { s.gradient(s.buffer()); });
  MPSImageDescriptor* d = describe({2, 3, 5});
  d.numberOfImages = 4;
  MPSImage* four = [[[MPSImage alloc] initWithDevice:s.device imageDescriptor:d] autorelease];
  NSArray* views = four.batchRepresentation;
  s.results = @[ [views objectAtIndex:1], [views objectAtIndex:3] ];
  allowed("different images of one texture", [&] { s.gradient(s.buffer()); });
}

void geometry() {
  Scene s;
  MPSNNForwardLoss* loss = s.loss;
  MPSNNLossGradient* gradient = s.loss_gradient;
  const auto result = [&] { return values_of([s.losses objectAtIndex:0])[0]; };
  loss.offset = {1, 0, 0};
  breaks("geometry_not_default", [&] { encode_and_finish(s); });
  check(std::isnan(result()), "undefined results are NaN");
  loss.offset = {0, 0, 0};
  loss.clipRect = MTLRegionMake2D(0, 0, 1, 1);
  breaks("geometry_not_default", [&] { encode_and_finish(s); });
  loss.clipRect = MPSRectNoClip;
  loss.sourceFeatureChannelOffset = 4;
  breaks("sizing_not_default", [&] { encode_and_finish(s); });
  loss.sourceFeatureChannelOffset = 0;
  gradient.secondaryOffset = {0, 0, 1};
  breaks("geometry_not_default", [&] { encode_and_finish(s); });
  gradient.secondaryOffset = {0, 0, 0};
  gradient.primaryStrideInPixelsX = 2;
  breaks("sizing_not_default", [&] { encode_and_finish(s); });
  gradient.primaryStrideInPixelsX = 1;
  allowed("defaults again", [&] { encode_and_finish(s); });
}

void disturbed() {
  Scene s;
  MPSNNForwardLoss* loss = s.loss;
  MPSNNLossGradient* gradient = s.loss_gradient;
  loss.destinationImageAllocator = gradient.destinationImageAllocator = [MPSImage defaultAllocator];
  id<MTLCommandBuffer> buffer = s.buffer();
  MPSImageBatch* losses = [loss encodeBatchToCommandBuffer:buffer
                                              sourceImages:s.predictions
                                                    labels:s.labels
                                                   weights:nil
                                         destinationStates:nullptr
                               destinationStateIsTemporary:NO];
  MPSImageBatch* gradients = [gradient encodeBatchToCommandBuffer:buffer
                                                  sourceGradients:s.gradients
                                                     sourceImages:s.predictions
                                                           labels:s.labels
                                                          weights:nil
                                                     sourceStates:nil];
  MPSImage* first = [losses objectAtIndex:0];
  check(losses.count == 2 && first.width == 3 && first.featureChannels == 5, "size of the results");
  check(first.featureChannelFormat == float16, "their format is the double's choice");
  check(loss.offset.x != 0 && gradient.primaryOffset.x != 0, "offsets are not what they were");
  MPSImageBatchSynchronize(losses, buffer);
  MPSImageBatchSynchronize(gradients, buffer);
  [buffer commit];
  [buffer waitUntilCompleted];
  breaks("geometry_not_default", [&] { s.forward(s.buffer()); });
  breaks("geometry_not_default", [&] { s.gradient(s.buffer()); });
  loss.offset = gradient.primaryOffset = gradient.secondaryOffset = {0, 0, 0};
  [gradient destinationImageDescriptorForSourceImages:@[ first, first ] sourceStates:nil];
  breaks("geometry_not_default", [&] { s.gradient(s.buffer()); });
  std::vector<uint16_t> halves(s.shape.count());
  [first readBytes:halves.data() dataLayout:{} imageIndex:0];
  check(halves[0] == 0x3400, "0.25 in half precision");
}

void inherited() {
  Scene s;
  breaks("wrong_encode", [&] {
    [s.loss.get() encodeBatchToCommandBuffer:s.buffer()
                                sourceImages:s.predictions
                           destinationImages:s.losses];
  });
  breaks("wrong_encode", [&] {
    [s.loss_gradient.get() encodeBatchToCommandBuffer:s.buffer()
                                        primaryImages:s.gradients
                                      secondaryImages:s.predictions];
  });
}

void cosine() {
  breaks("cosine_reduction", [] { Scene(MPSCNNLossTypeCosineDistance, MPSCNNReductionTypeMean); });
  Scene s(MPSCNNLossTypeCosineDistance, MPSCNNReductionTypeSum);
  std::vector<float> uneven(s.shape.count(), 1);
  uneven[7] = 2;
  s.weights = @[ make_image(s.device, s.shape, uneven), [s.weights objectAtIndex:1] ];
  breaks("cosine_weights", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.finish(buffer);
  });
}

void defaults() {
  Scene s;
  MPSNNLossGradient* g = s.loss_gradient;
  check(g.weight == 1 && g.labelSmoothing == 0 && g.epsilon == 1e-7f && g.delta == 1, "dynamic");
  check(g.numberOfClasses == 1 && !g.computeLabelGradients && !g.reduceAcrossBatch, "others");
  check(g.lossType == MPSCNNLossTypeMeanSquaredError && g.reductionType == MPSCNNReductionTypeNone,
        "from the descriptor");
  check(g.primarySourceFeatureChannelMaxCount == NSUIntegerMax, "max count");
  check(g.primaryStrideInPixelsX == 1 && g.secondaryStrideInPixelsY == 1, "strides");
  check(g.primaryEdgeMode == MPSImageEdgeModeZero && g.options == MPSKernelOptionsNone, "modes");
  check([g.padding paddingMethod] == 16 && g.label == nil, "padding, label");
  check(g.destinationImageAllocator == [MPSTemporaryImage defaultAllocator], "allocator");
  check(![g isResultStateReusedAcrossBatch] && ![g appendBatchBarrier] && !g.isStateModified,
        "BOOLs");
  const MTLRegion clip = g.clipRect;
  check(memcmp(&clip, &MPSRectNoClip, sizeof clip) == 0, "clipRect");
}

void captured() {
  Scene s;
  s.weights = nil;
  allowed("changes after the encode", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.loss.get().weight = 100;
    s.finish(buffer);
    check_near(values_of([s.losses objectAtIndex:0])[0], 0.25, 0, "the value of then");
  });
}

const Registration all[] = {
    {"a kernel is changed while another thread encodes it", changing},
    {"batches", batches},
    {"shapes of operands", shapes},
    {"destinations that are also something else", aliases},
    {"offsets, clip rectangles and the rest", geometry},
    {"returning encodes disturb the offsets", disturbed},
    {"encodes without labels", inherited},
    {"cosine distance", cosine},
    {"Apple's defaults", defaults},
    {"properties count when they are encoded", captured},
};

}  // namespace
