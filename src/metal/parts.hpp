// What the parts of the Metal engine know of each other. Plain C++: objects of Objective-C pass as
// void*, borrowed unless said otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/backend.hpp"
#include "core/completion.hpp"
#include "core/loss_call.hpp"

namespace mpsnn_loss::metal {

// images.mm
inline constexpr std::int64_t kMostPixels = 16384;  // of one side of a 2D texture, on every Mac
/// 2047 slices of four: the headers disagree about the 2048th.
inline constexpr std::int64_t kMostChannels = 8188;
/// Empty where images of this size can be, else one sentence why not.
std::string unsupported_size(const Shape& shape);
/// Throws ValueError or TypeError where an image of this size or format cannot be an MPSImage.
void check_limits(const char* argument, const BatchDescriptor& descriptor);
std::shared_ptr<ImageBatch> make_images(std::shared_ptr<Device> device,
                                        const BatchDescriptor& descriptor, bool zero_filled);
/// A copy of host memory; results are copied back to it, so `owner` lives as long as the images.
std::shared_ptr<ImageBatch> upload_images(std::shared_ptr<Device> device,
                                          const BatchDescriptor& descriptor, std::byte* data,
                                          bool writable, std::shared_ptr<void> owner);
/// The images as NSArray<MPSImage*>*, autoreleased; a batch of one image stands for each of
/// `count`.
void* image_array(const ImageBatch& batch, std::int64_t count);
/// The host memory that an image's results go to, or null.
const std::byte* host_destination(const ImageBatch& batch, std::int64_t image);

// foreign_images.mm
/// Images made elsewhere, an NSArray<MPSImage*>*, retained. `unreadable`: why the host cannot see
/// into them.
std::shared_ptr<ImageBatch> hold_images(std::shared_ptr<Device> device,
                                        const BatchDescriptor& descriptor, void* images,
                                        bool writable, std::string unreadable);
/// An MPSImage*, with each image in it, or an NSArray<MPSImage*>*.
std::shared_ptr<ImageBatch> adopt_images(std::shared_ptr<Device> device, ForeignKind kind,
                                         void* object);

// kernel_objects.mm: kernels of Apple's without our wrapping
/// A new kernel object, retained for the caller. Throws StateError where Metal has none.
void* new_kernel_object(void* device, KernelKind kind, const LossDescriptor& descriptor);
/// What of a kernel object changes between encodes.
struct DynamicProperties {
  LossParameters parameters;
  bool compute_label_gradients = false;
};
DynamicProperties dynamic_properties(KernelKind kind, void* kernel);
void set_dynamic_properties(KernelKind kind, void* kernel, const DynamicProperties& properties);
/// The descriptor that a kernel object follows.
LossDescriptor descriptor_of(KernelKind kind, void* kernel);

// kernels.mm
class MetalKernel : public Kernel {
 public:
  using Kernel::Kernel;
  /// Calls encode(kernel object) while nobody changes the kernel, with the call's captured
  /// properties on it, which are put back afterwards.
  virtual void encode_with(const LossCall& call, const std::function<void(void*)>& encode) = 0;
};
std::shared_ptr<MetalKernel> make_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                         const LossDescriptor& descriptor);
std::shared_ptr<Kernel> copy_kernel(std::shared_ptr<Device> device, const Kernel& kernel);
std::shared_ptr<Kernel> unarchive_kernel(std::shared_ptr<Device> device, KernelKind kind,
                                         std::string_view data);

// inherited_access.mm: the inherited properties of an MPSKernel, row by row of
// core/kernel_properties.hpp
using InheritedValues = std::vector<PropertyValue>;
InheritedValues get_inherited(KernelKind kind, void* kernel);
/// Writes those that can be written and differ from what the object has.
void set_inherited(KernelKind kind, void* kernel, const InheritedValues& values);

// encode.mm
/// A call whose operands are images.
struct ImageCall {
  LossCall call;
  std::shared_ptr<ImageBatch> weights;  // instead of the call's: of the predictions' full size
};
/// Encodes a call with a kernel object onto an id<MTLCommandBuffer>; results are synchronised for
/// reading.
void encode_call(void* command_buffer, void* kernel, const ImageCall& image_call);
/// The same for a call without an output: the kernel returns images, NSArray<MPSImage*>*,
/// autoreleased. They are those of `images`, or temporary ones where that is null. The kernel is
/// left as it was.
void* encode_returning(void* command_buffer, void* kernel, const ImageCall& image_call,
                       const ImageBatch* images);
/// The shape and format of the images that a call writes.
BatchDescriptor result_descriptor(const LossCall& call);

// result_allocator.mm
/// An id<MPSImageAllocator>, autoreleased, that hands out `images`, an NSArray<MPSImage*>*, or
/// makes temporary ones of one format where that is null.
void* result_allocator(Format format, void* images);

// command_buffer.mm
/// Throws DeviceError unless an id<MTLCommandBuffer> has completed.
void check_completed(void* command_buffer);
/// The same, returned; on a thread of the driver.
std::exception_ptr error_of(void* command_buffer);
/// When the GPU began and ended, in seconds.
std::pair<double, double> gpu_times(void* command_buffer);
/// What command buffers of ours and of others share: encoding, and what completion means.
class MetalCommandBuffer : public CommandBuffer {
 public:
  using CommandBuffer::CommandBuffer;

 protected:
  void do_encode(const LossCall& call) override;
  std::shared_ptr<ImageBatch> do_encode(const LossCall& call, ResultAllocator allocator) override;
  /// The id<MTLCommandBuffer>, made now where there is none yet.
  virtual void* open() = 0;
  /// Throws where a call cannot go into this kind of buffer.
  virtual void check_call(const LossCall&) const {}
  /// Temporary images go back to Metal: to be called before commit, and before dropping.
  void release_temporaries();
  /// Releases what was encoded.
  void forget() {
    calls_.clear();
    returned_.clear();
  }
  /// On a thread of the driver: results to the host, then status and handlers. `error`: why the
  /// work has failed already.
  void complete(void* command_buffer, std::exception_ptr error = nullptr);
  /// Status and handlers, which run on another thread.
  void end(std::exception_ptr error);

 private:
  ImageCall prepared(LossCall call) const;
  void check_queue() const final;

  const int made_in_ = forks();   // the process
  std::vector<ImageCall> calls_;  // keep their images until completion
  // Images that kernels returned; the temporary ones must go before commit.
  std::vector<std::shared_ptr<ImageBatch>> returned_, temporaries_;
};

// queue.mm
std::shared_ptr<Queue> make_queue(std::shared_ptr<Device> device, const std::string& label);
/// On an id<MTLCommandQueue> made elsewhere, retained.
std::shared_ptr<Queue> adopt_queue(std::shared_ptr<Device> device, void* queue);

// foreign_buffer.mm
std::shared_ptr<CommandBuffer> adopt_command_buffer(std::shared_ptr<Device> device, void* buffer);

// device.mm
/// What one-call functions work with: kernels are kept for the next call, and there is one queue.
class ArrayWorkshop {
 public:
  virtual ~ArrayWorkshop() = default;
  /// The id<MTLCommandQueue>, made at the first call.
  virtual void* queue() = 0;
  /// How much the images of one command buffer may take.
  virtual std::int64_t most_bytes() const = 0;
  /// A kernel object for `descriptor`, whose dynamic properties are still to be set.
  virtual void* take_kernel(KernelKind kind, const LossDescriptor& descriptor) = 0;
  virtual void give_back(KernelKind kind, const LossDescriptor& descriptor, void* kernel) = 0;
};

// array_calls.mm
/// Runs a call on host arrays and returns when it is done, or when `waiting` throws.
void compute(const std::shared_ptr<Device>& device, ArrayWorkshop& workshop, const LossCall& call,
             Waiting waiting);

}  // namespace mpsnn_loss::metal
