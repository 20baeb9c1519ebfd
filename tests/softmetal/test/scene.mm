#include "scene.hpp"

MPSImageDescriptor* describe(Shape shape, MPSImageFeatureChannelFormat format) {
  return [MPSImageDescriptor imageDescriptorWithChannelFormat:format
                                                        width:shape.width
                                                       height:shape.height
                                              featureChannels:shape.channels];
}

MPSImage* make_image(id<MTLDevice> device, Shape shape, MPSImageFeatureChannelFormat format) {
  return [[[MPSImage alloc] initWithDevice:device
                           imageDescriptor:describe(shape, format)] autorelease];
}

MPSImage* make_image(id<MTLDevice> device, Shape shape, const std::vector<float>& values) {
  MPSImage* image = make_image(device, shape);
  [image writeBytes:values.data()
         dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels
         imageIndex:0];
  return image;
}

MPSImage* make_image(id<MTLDevice> device, Shape shape, float value) {
  return make_image(device, shape, std::vector<float>(shape.count(), value));
}

MPSImageBatch* make_batch(id<MTLDevice> device, NSUInteger count, Shape shape, float value) {
  NSMutableArray* batch = [NSMutableArray array];
  for (NSUInteger i = 0; i < count; ++i) [batch addObject:make_image(device, shape, value)];
  return batch;
}

std::vector<float> values_of(MPSImage* image) {
  std::vector<float> values(image.width * image.height * image.featureChannels);
  [image readBytes:values.data() dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels imageIndex:0];
  return values;
}

namespace {

MPSCNNLossDescriptor* loss_descriptor(MPSCNNLossType type, MPSCNNReductionType reduction,
                                      bool across) {
  MPSCNNLossDescriptor* made = [MPSCNNLossDescriptor cnnLossDescriptorWithType:type
                                                                 reductionType:reduction];
  made.reduceAcrossBatch = across;
  return made;
}

MPSImageBatch* empty_batch(id<MTLDevice> device, Shape shape) {
  return @[ make_image(device, shape), make_image(device, shape) ];
}

}  // namespace

Scene::Scene(MPSCNNLossType type, MPSCNNReductionType reduction, bool across, Shape shape_)
    : device(MTLCreateSystemDefaultDevice()),
      queue([device.get() newCommandQueue]),
      shape(shape_),
      descriptor(loss_descriptor(type, reduction, across)),
      loss([[MPSNNForwardLoss alloc] initWithDevice:device lossDescriptor:descriptor]),
      loss_gradient([[MPSNNLossGradient alloc] initWithDevice:device lossDescriptor:descriptor]) {
  const bool reduced = reduction != MPSCNNReductionTypeNone;
  const Shape loss_shape = reduced ? Shape{1, 1, 1} : shape;
  predictions = make_batch(device, 2, shape, 0.25f);
  labels = make_batch(device, 2, shape, 0.75f);
  weights = make_batch(device, 2, shape, 0.5f);
  gradients = make_batch(device, 2, loss_shape, 2);
  losses = empty_batch(device, loss_shape);
  results = empty_batch(device, shape);
}

void Scene::forward(id<MTLCommandBuffer> to) const {
  [loss.get() encodeBatchToCommandBuffer:to
                            sourceImages:predictions
                                  labels:labels
                                 weights:weights
                       destinationStates:nil
                       destinationImages:losses];
}

void Scene::gradient(id<MTLCommandBuffer> to) const {
  [loss_gradient.get() encodeBatchToCommandBuffer:to
                                  sourceGradients:gradients
                                     sourceImages:predictions
                                           labels:labels
                                          weights:weights
                                     sourceStates:nil
                             destinationGradients:results];
}

void Scene::finish(id<MTLCommandBuffer> buffer) const {
  MPSImageBatchSynchronize(losses, buffer);
  MPSImageBatchSynchronize(results, buffer);
  [buffer commit];
  [buffer waitUntilCompleted];
}

id<MTLTexture> make_texture(id<MTLDevice> device, NSUInteger width, NSUInteger height,
                            NSUInteger slices, MTLPixelFormat format, MTLStorageMode mode) {
  MTLTextureDescriptor* d = [MTLTextureDescriptor texture2DDescriptorWithPixelFormat:format
                                                                               width:width
                                                                              height:height
                                                                           mipmapped:NO];
  d.textureType = slices > 1 ? MTLTextureType2DArray : MTLTextureType2D;
  d.arrayLength = slices;
  d.storageMode = mode;
  d.usage = MTLTextureUsageShaderRead | MTLTextureUsageShaderWrite;
  return [[device newTextureWithDescriptor:d] autorelease];
}
