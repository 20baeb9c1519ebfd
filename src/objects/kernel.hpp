// What a user holds as MPSNNLossGradient and the like, and the states that forward encodes fill.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/computation.hpp"
#include "core/engine.hpp"
#include "objects/kernel_properties.hpp"

namespace mpsnn_loss {

class Device;

/// The values that one forward encode captured for one image, or for the whole batch (MPSState).
struct State {
  explicit State(std::shared_ptr<Device> its_device) : device(std::move(its_device)) {}
  virtual ~State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  const std::shared_ptr<Device> device;
  std::optional<LossParameters> values;  // empty until a forward encode fills it
  std::string label;
};

/// What an inherited row holds, for each row.
using InheritedValues = std::vector<PropertyValue>;

class Kernel {
 public:
  virtual ~Kernel() = default;
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }
  KernelKind kind() const { return kind_; }

  /// The descriptor with the properties as they are at this moment.
  LossDescriptor descriptor() const;
  /// The descriptor that the kernel was made with.
  const LossDescriptor& initial_descriptor() const { return descriptor_; }
  KernelProperties properties() const;
  /// The value of an inherited row.
  PropertyValue inherited(std::size_t row) const;
  /// Gives a request this kernel's work and its properties as they are now. Throws ValueError
  /// naming the first inherited property that was moved away from what a fresh kernel has: the
  /// header calls the result of encoding with one undefined.
  void fill(Request& request) const;
  /// Changes properties under the kernel's mutex. `change` checks and throws before it writes.
  void update(const std::function<void(KernelProperties&)>& change);
  /// NSCopying: a kernel on `device` with every property of this one.
  std::shared_ptr<Kernel> copy(const std::shared_ptr<Device>& device) const;

  /// kernel(y, t): runs a computation on host memory whose request fill() has made, and returns
  /// when it is done.
  virtual void run(const Computation& computation, Waiting waiting) = 0;
  /// A state for one image, to be filled by an encode.
  virtual std::shared_ptr<State> make_state() const { return std::make_shared<State>(device_); }

 protected:
  /// `fresh`: what the inherited rows of such an object are when it is made.
  Kernel(std::shared_ptr<Device> device, KernelKind kind, const LossDescriptor& descriptor,
         InheritedValues fresh);

  /// Called under the mutex after a change (Metal: writes it through to the kernel object).
  virtual void store(const KernelProperties&) {}
  /// Called under the mutex before properties are returned (Metal: reads them from the kernel
  /// object).
  virtual void load(KernelProperties&) const {}
  const InheritedValues& fresh() const { return fresh_; }
  std::mutex& mutex() const { return mutex_; }

 private:
  const std::shared_ptr<Device> device_;
  const KernelKind kind_;
  const LossDescriptor descriptor_;  // its parameters are the initial ones
  const InheritedValues fresh_;
  mutable std::mutex mutex_;
  mutable KernelProperties properties_;  // loaded before every use
};

}  // namespace mpsnn_loss
