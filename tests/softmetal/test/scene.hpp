// What most tests need: a device, a queue, images with values, kernels.
#pragma once
#include <vector>

#include "support.hpp"

/// Adopts an object and releases it at the end.
template <class T>
class Held {
 public:
  Held(T object) : object_(object) {}
  ~Held() { [object_ release]; }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  operator T() const { return object_; }
  T get() const { return object_; }

 private:
  T object_;
};

struct Shape {
  NSUInteger height = 2, width = 3, channels = 5;
  NSUInteger count() const { return height * width * channels; }
};

constexpr auto float32 = MPSImageFeatureChannelFormatFloat32;
constexpr auto float16 = MPSImageFeatureChannelFormatFloat16;

MPSImageDescriptor* describe(Shape shape, MPSImageFeatureChannelFormat format = float32);
/// Autoreleased, without contents.
MPSImage* make_image(id<MTLDevice> device, Shape shape,
                     MPSImageFeatureChannelFormat format = float32);
MPSImage* make_image(id<MTLDevice> device, Shape shape, const std::vector<float>& values);
/// Filled with one value.
MPSImage* make_image(id<MTLDevice> device, Shape shape, float value);
MPSImageBatch* make_batch(id<MTLDevice> device, NSUInteger count, Shape shape, float value);
std::vector<float> values_of(MPSImage* image);

/// One device and queue, and everything for an encode of N = 2 images.
struct Scene {
  explicit Scene(MPSCNNLossType type = MPSCNNLossTypeMeanSquaredError,
                 MPSCNNReductionType reduction = MPSCNNReductionTypeNone, bool across = false,
                 Shape shape = {});

  id<MTLCommandBuffer> buffer() const { return [queue.get() commandBuffer]; }
  void forward(id<MTLCommandBuffer> to) const;
  void gradient(id<MTLCommandBuffer> to) const;
  /// Synchronises the results, commits and waits.
  void finish(id<MTLCommandBuffer> buffer) const;

  const Held<id<MTLDevice>> device;
  const Held<id<MTLCommandQueue>> queue;
  const Shape shape;
  MPSCNNLossDescriptor* const descriptor;
  const Held<MPSNNForwardLoss*> loss;
  const Held<MPSNNLossGradient*> loss_gradient;
  MPSImageBatch *predictions, *labels, *weights, *gradients, *losses, *results;
};

/// A texture of the user's own, and an image around it.
id<MTLTexture> make_texture(id<MTLDevice> device, NSUInteger width, NSUInteger height,
                            NSUInteger slices, MTLPixelFormat format,
                            MTLStorageMode mode = MTLStorageModeManaged);
