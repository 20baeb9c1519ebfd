// A user's kernel: one kernel object of Apple's, written through and read back.
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <utility>

#include "core/error.hpp"
#include "metal/objc_guard.hpp"
#include "metal/objc_ptr.hpp"
#include "metal/parts.hpp"

namespace mpsnn_loss::metal {
namespace {

/// What was set stays float64; what somebody else set on the object is read from it.
void read_parameter(double stored, double& known) {
  if (static_cast<double>(static_cast<float>(known)) != stored) known = stored;
}

class KernelObject final : public MetalKernel {
 public:
  /// Takes over the reference to `object`. `fresh`: what such an object has when it is made.
  KernelObject(std::shared_ptr<Device> device, KernelKind kind, const LossDescriptor& descriptor,
               objc_ptr<MPSKernel*> object, InheritedValues fresh)
      : MetalKernel(std::move(device), kind, descriptor),
        object_(std::move(object)),
        fresh_(std::move(fresh)) {}
  ~KernelObject() override {
    const autorelease_pool pool;
    object_ = {};
  }

  void* native_handle() const override { return object_.get(); }
  const InheritedValues& fresh() const { return fresh_; }

  void encode_with(const LossCall& call, const std::function<void(void*)>& encode) override {
    const std::lock_guard lock(mutex());
    const Restored restored{kind(), object_.get(), dynamic_properties(kind(), object_.get())};
    set_dynamic_properties(kind(), object_.get(),
                           {call->descriptor.parameters, call->wrt == Wrt::labels});
    encode(object_.get());
  }

  std::string archived_data() const override {
    std::string archive;
    guarded("archiving a kernel", [&] {
      const std::lock_guard lock(mutex());
      NSError* error = nil;
      NSData* const data = [NSKeyedArchiver archivedDataWithRootObject:object_.get()
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

 private:
  struct Restored {
    const KernelKind kind;
    void* const object;
    const DynamicProperties before;
    ~Restored() { set_dynamic_properties(kind, object, before); }
  };

  void store(const KernelProperties& properties) override {
    guarded("setting a kernel's properties", [&] {
      set_dynamic_properties(kind(), object_.get(),
                             {properties.parameters, properties.compute_label_gradients});
      [object_.get() setOptions:static_cast<MPSKernelOptions>(properties.options)];
      [object_.get() setLabel:properties.has_label
                                  ? [NSString stringWithUTF8String:properties.label.c_str()]
                                  : nil];
      InheritedValues values = fresh_;
      for (const auto& [row, value] : properties.moved) values[row] = value;
      set_inherited(kind(), object_.get(), values);
    });
  }

  void load(KernelProperties& properties) const override {
    guarded("reading a kernel's properties", [&] {
      if (kind() != KernelKind::initial_gradient) {
        const DynamicProperties now = dynamic_properties(kind(), object_.get());
        LossParameters& known = properties.parameters;
        read_parameter(now.parameters.weight, known.weight);
        read_parameter(now.parameters.label_smoothing, known.label_smoothing);
        read_parameter(now.parameters.epsilon, known.epsilon);
        read_parameter(now.parameters.delta, known.delta);
        properties.compute_label_gradients = now.compute_label_gradients;
      }
      properties.options = static_cast<std::uint64_t>([object_.get() options]);
      NSString* const label = [object_.get() label];
      properties.has_label = label != nil;
      properties.label = label != nil ? [label UTF8String] : "";
      const InheritedValues now = get_inherited(kind(), object_.get());
      const auto rows = inherited_properties(kind());
      properties.moved.clear();
      for (std::size_t row = 0; row < rows.size(); ++row) {
        if (!rows[row].read_only && now[row] != fresh_[row]) properties.moved[row] = now[row];
      }
    });
  }

  PropertyValue fresh_value(std::size_t row) const override { return fresh_[row]; }

  objc_ptr<MPSKernel*> object_;
  const InheritedValues fresh_;
};

Class class_of(KernelKind kind) {
  switch (kind) {
    case KernelKind::forward_loss: return [MPSNNForwardLoss class];
    case KernelKind::loss_gradient: return [MPSNNLossGradient class];
    case KernelKind::initial_gradient: return [MPSNNInitialGradient class];
  }
  return Nil;
}

id<MTLDevice> metal_device(const Device& device) { return (id<MTLDevice>)device.native_handle(); }

objc_ptr<MPSKernel*> fresh_object(const Device& device, KernelKind kind,
                                  const LossDescriptor& descriptor) {
  return objc_ptr<MPSKernel*>::adopted(
      (MPSKernel*)new_kernel_object(device.native_handle(), kind, descriptor));
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

}  // namespace

std::shared_ptr<MetalKernel> make_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                         const LossDescriptor& descriptor) {
  objc_ptr<MPSKernel*> object;
  InheritedValues fresh;
  guarded("making a kernel", [&] {
    object = fresh_object(*device, kind, descriptor);
    fresh = get_inherited(kind, object.get());
  });
  return std::make_shared<KernelObject>(std::move(device), kind, descriptor, std::move(object),
                                        std::move(fresh));
}

std::shared_ptr<Kernel> copy_kernel(std::shared_ptr<Device> device, const Kernel& kernel) {
  const KernelProperties properties = kernel.properties();
  objc_ptr<MPSKernel*> object;
  guarded("copying a kernel", [&] {
    auto* const original = (MPSKernel*)kernel.native_handle();
    object = objc_ptr<MPSKernel*>::adopted(not_nil(
        [original copyWithZone:nil device:metal_device(*device)], class_name(kernel.kind())));
  });
  auto copy = std::make_shared<KernelObject>(std::move(device), kernel.kind(),
                                             kernel.initial_descriptor(), std::move(object),
                                             static_cast<const KernelObject&>(kernel).fresh());
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
  return std::make_shared<KernelObject>(std::move(device), kind, descriptor, std::move(object),
                                        std::move(fresh));
}

}  // namespace mpsnn_loss::metal
