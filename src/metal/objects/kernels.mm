#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "core/error.hpp"
#include "metal/mps/objc_guard.hpp"
#include "metal/objects/device.hpp"
#include "metal/objects/expanded_weights.hpp"
#include "metal/objects/inherited_access.hpp"
#include "metal/objects/kernels.hpp"

namespace mpsnn_loss::metal {
namespace {

/// What was set stays float64; what somebody else set on the object is read from it.
void read_parameter(double stored, double& known) {
  if (static_cast<double>(static_cast<float>(known)) != stored) known = stored;
}

objc_ptr<MPSKernel*> fresh_object(const Device& device, KernelKind kind,
                                  const LossDescriptor& descriptor) {
  return new_kernel_object(metal_device(device), kind, descriptor);
}

/// The object in an archive, or ValueError.
objc_ptr<MPSKernel*> unarchived(const Device& device, KernelKind kind, std::string_view bytes) {
  enter("unarchiving");  // below, every StateError speaks of the data
  objc_ptr<MPSKernel*> object;
  std::string why = "it holds none";
  try {
    guarded("unarchiving", [&] {
      NSError* error = nil;
      NSData* const data = [NSData dataWithBytes:bytes.data() length:bytes.size()];
      const id result = [MPSKeyedUnarchiver unarchivedObjectOfClass:class_of(kind)
                                                           fromData:data
                                                             device:metal_device(device)
                                                              error:&error];
      if ([result isKindOfClass:class_of(kind)]) object = objc_ptr<MPSKernel*>::retained(result);
      if (error != nil) why = [[error localizedDescription] UTF8String];
    });
  } catch (const StateError& raised) {
    why = raised.what();
  }
  if (object) return object;
  throw ValueError(
      refusal("data", std::string("be an archive of ") + class_name(kind), "data (" + why + ")"));
}

/// Images of the device with the values of an array.
objc_ptr<ImageArray> uploaded(const Device& device, const Operand& array) {
  device.check_images(array.name, array.descriptor);
  auto images = new_images(metal_device(device), array.descriptor);
  for (std::int64_t i = 0; i < array.shape().images; ++i)
    write_image(nth(images.get(), i), array.image_data(i));
  return images;
}

objc_ptr<ImageArray> uploaded_weights(const Device& device, const Request& request) {
  if (!request.weights) return {};
  const Shape& shape = request.predictions.shape();
  if (cover_pixels(request.weights->shape(), shape)) return uploaded(device, *request.weights);
  WeightValues full = expanded(*request.weights, shape);
  return uploaded(device, full.operand("weights"));
}

/// The same, one for each of so many images; nil where there are none.
ImageArray for_each_of(const objc_ptr<ImageArray>& images, std::int64_t count) {
  if ([images.get() count] != 1) return images.get();
  return repeated(nth(images.get(), 0), count);
}

/// The source gradients of a gradient. Where there is one value, one image stands for all.
objc_ptr<ImageArray> uploaded_source_gradients(const Device& device, const Request& request) {
  if (request.source_gradients) return uploaded(device, *request.source_gradients);
  BatchDescriptor one{loss_shape(request.descriptor, request.predictions.shape()), Format::float32};
  one.shape.images = 1;
  std::vector<float> values(static_cast<std::size_t>(one.shape.elements()),
                            static_cast<float>(request.uniform_source_gradient));
  return uploaded(device, Operand("source_gradient", one, values.data(), false));
}

}  // namespace

void MetalKernel::run(const Computation& computation, Waiting waiting) {
  const Request& r = *computation;
  const std::int64_t images = r.predictions.shape().images;
  guarded("running a kernel", [&] {
    const auto predictions = uploaded(*device(), r.predictions);
    const auto labels = r.labels ? uploaded(*device(), *r.labels) : objc_ptr<ImageArray>();
    const auto weights = uploaded_weights(*device(), r);
    const bool is_gradient = kind() == KernelKind::loss_gradient;
    const auto source_gradients =
        is_gradient ? uploaded_source_gradients(*device(), r) : objc_ptr<ImageArray>();
    const Operand& array = *r.result();
    device()->check_images(array.name, array.descriptor);
    const auto results = new_images(metal_device(*device()), array.descriptor);
    fill_with_zeros(results.get(), array.descriptor);
    ShortBuffer buffer(as_metal(*device()).own_queue());
    encode_with(r, [&](MPSKernel* kernel) {
      encode(buffer.get(), kind(), kernel,
             {for_each_of(predictions, images), for_each_of(labels, images),
              for_each_of(weights, images), for_each_of(source_gradients, images), nil},
             results.get());
    });
    buffer.run(waiting);  // what it throws leaves the array as it is
    for (std::int64_t i = 0; i < array.shape().images; ++i)
      read_image(nth(results.get(), i), array.image_data(i));
  });
}

std::string MetalKernel::archived_data() const {
  std::string archive;
  guarded("archiving a kernel", [&] {
    const std::lock_guard lock(mutex());
    NSError* error = nil;
    NSData* const data = [NSKeyedArchiver archivedDataWithRootObject:object()
                                               requiringSecureCoding:YES
                                                               error:&error];
    if (data == nil) {
      throw StateError(std::string("the kernel could not be archived: ") +
                       (error != nil ? [[error localizedDescription] UTF8String]
                                     : "NSKeyedArchiver returned nil"));
    }
    archive.assign(static_cast<const char*>([data bytes]), [data length]);
  });
  return archive;
}

void MetalKernel::store(const KernelProperties& properties) {
  guarded("setting a kernel's properties", [&] {
    set_dynamic_properties(kind(), object(),
                           {properties.parameters, properties.compute_label_gradients});
    [object() setOptions:static_cast<MPSKernelOptions>(properties.options)];
    [object() setLabel:properties.has_label
                           ? [NSString stringWithUTF8String:properties.label.c_str()]
                           : nil];
    InheritedValues values = fresh();
    for (const auto& [row, value] : properties.moved) values[row] = value;
    set_inherited(kind(), object(), values);
  });
}

void MetalKernel::load(KernelProperties& properties) const {
  guarded("reading a kernel's properties", [&] {
    if (kind() != KernelKind::initial_gradient) {
      const DynamicProperties now = dynamic_properties(kind(), object());
      LossParameters& known = properties.parameters;
      read_parameter(now.parameters.weight, known.weight);
      read_parameter(now.parameters.label_smoothing, known.label_smoothing);
      read_parameter(now.parameters.epsilon, known.epsilon);
      read_parameter(now.parameters.delta, known.delta);
      properties.compute_label_gradients = now.compute_label_gradients;
    }
    properties.options = static_cast<std::uint64_t>([object() options]);
    NSString* const label = [object() label];
    properties.has_label = label != nil;
    properties.label = label != nil ? [label UTF8String] : "";
    const InheritedValues now = get_inherited(kind(), object());
    const auto rows = inherited_properties(kind());
    properties.moved.clear();
    for (std::size_t row = 0; row < rows.size(); ++row) {
      if (!rows[row].read_only && now[row] != fresh()[row]) properties.moved[row] = now[row];
    }
  });
}

std::shared_ptr<Kernel> make_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                    const LossDescriptor& descriptor) {
  objc_ptr<MPSKernel*> object;
  InheritedValues fresh;
  guarded("making a kernel", [&] {
    object = fresh_object(*device, kind, descriptor);
    fresh = get_inherited(kind, object.get());
  });
  return std::make_shared<MetalKernel>(std::move(device), kind, descriptor, std::move(object),
                                       std::move(fresh));
}

std::shared_ptr<Kernel> copy_kernel(std::shared_ptr<Device> device, const MetalKernel& kernel) {
  const KernelProperties properties = kernel.properties();
  objc_ptr<MPSKernel*> object;
  guarded("copying a kernel", [&] {
    MPSKernel* const original = kernel.object();
    object = objc_ptr<MPSKernel*>::adopted(not_nil(
        [original copyWithZone:nil device:metal_device(*device)], class_name(kernel.kind())));
  });
  auto copy =
      std::make_shared<MetalKernel>(std::move(device), kernel.kind(), kernel.initial_descriptor(),
                                    std::move(object), kernel.fresh_values());
  // Which properties survive is undocumented.
  copy->update([&](KernelProperties& p) { p = properties; });
  return copy;
}

std::shared_ptr<Kernel> unarchive_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                         std::string_view data) {
  objc_ptr<MPSKernel*> object = unarchived(*device, kind, data);
  LossDescriptor descriptor;
  guarded("reading a kernel's properties", [&] { descriptor = descriptor_of(kind, object.get()); });
  if (kind != KernelKind::initial_gradient) check(descriptor);
  InheritedValues fresh;
  guarded("making a kernel",
          [&] { fresh = get_inherited(kind, fresh_object(*device, kind, descriptor).get()); });
  return std::make_shared<MetalKernel>(std::move(device), kind, descriptor, std::move(object),
                                       std::move(fresh));
}

}  // namespace mpsnn_loss::metal
