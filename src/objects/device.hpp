// Apple's object model: a device makes images, kernels and queues; a queue makes command buffers; a
// command buffer encodes kernels, is committed and waited for.
//
// Ownership. Everything is held by shared_ptr. Images, kernels and queues keep their device alive,
// a command buffer keeps its queue, and every image of its encodes until it has completed.
//
// Threads. A command buffer serialises its own encode and commit. Different objects are
// independent. What happens to images that several buffers use stands in objects/image_uses.hpp.
//
// Errors. Misuse throws before anything is written (core/error.hpp). Work that fails after commit
// is kept by its command buffer: wait throws it, and so does reading an image it should have
// written.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "core/engine.hpp"
#include "objects/command_buffer.hpp"
#include "objects/image_batch.hpp"
#include "objects/kernel.hpp"

namespace mpsnn_loss {

/// Who keeps memory that images are made on; destroyed on any thread.
using MemoryOwner = std::unique_ptr<void, void (*)(void*)>;

class Device : public std::enable_shared_from_this<Device> {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// What computes the functions on arrays here.
  Engine& engine() const { return *engine_; }
  std::string name() const { return engine_->name(); }
  /// "cpu" or "metal".
  const char* kind() const { return kind_; }

  /// Empty where images can have this shape, else one sentence why not.
  virtual std::string supports_images(const Shape&) const { return {}; }
  /// Throws TypeError or ValueError naming the argument where the device cannot have such images.
  void check_images(const char* argument, const BatchDescriptor& descriptor) const;
  /// New images, zero-filled. They were checked.
  virtual std::shared_ptr<ImageBatch> make_images(const BatchDescriptor& descriptor) = 0;
  /// Images on the caller's C-contiguous memory, checked too. A device that shares the memory keeps
  /// `owner` as long as the images live; one that does not uploads a copy.
  virtual std::shared_ptr<ImageBatch> wrap_images(const BatchDescriptor& descriptor,
                                                  std::byte* data, bool writable,
                                                  MemoryOwner owner) = 0;
  /// ValueError where the descriptor is none, StateError where the engine does not support it.
  std::shared_ptr<Kernel> make_kernel(KernelKind kind, const LossDescriptor& descriptor);
  /// A kernel with every property of another, which may be of another device.
  virtual std::shared_ptr<Kernel> copy_kernel(const Kernel& kernel);
  virtual std::shared_ptr<Queue> make_queue(const std::string& label) = 0;

 protected:
  Device(std::shared_ptr<Engine> engine, const char* kind)
      : engine_(std::move(engine)), kind_(kind) {}
  /// Of a descriptor that was checked.
  virtual std::shared_ptr<Kernel> new_kernel(KernelKind kind, const LossDescriptor& descriptor) = 0;

 private:
  const std::shared_ptr<Engine> engine_;
  const char* const kind_;
};

}  // namespace mpsnn_loss
