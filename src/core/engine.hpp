// What computes: three functions. Whoever writes them has the functions on arrays, and Apple's
// object model on host memory for nothing (objects/host_device.hpp).
#pragma once

#include <optional>
#include <string>

#include "core/computation.hpp"

namespace mpsnn_loss {

/// What an engine is asked about: a computation of which any part may not be known yet.
struct Need {
  std::optional<LossDescriptor> loss = {};
  std::optional<Format> format = {};  // of the predictions
  std::optional<Shape> shape = {};    // of the predictions
  std::optional<Work> work = {};
};

/// Called now and then, from the calling thread, while a call waits; null where nobody wants to.
/// What it throws ends the wait.
using Waiting = void (*)();

class Engine {
 public:
  virtual ~Engine() = default;
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  virtual std::string name() const = 0;
  /// Empty where the engine can do it, else one sentence why not.
  virtual std::string supports(const Need& need) const = 0;
  /// Writes the outputs of a computation that it supports (the numbers:
  /// python/mpsnn_loss/_reference; an initial gradient is ones), whose operands are in host memory,
  /// and returns when that is done; or throws and has written nothing that anyone may rely on.
  /// Calls from several threads are independent. Operands of the functions lie in one stretch each;
  /// those of the object model on host memory may be scattered, and come with parameters of each
  /// image. The caller's floating-point environment may be anything (core/floating_point.hpp).
  virtual void compute(const Computation& computation, Waiting waiting) = 0;
};

}  // namespace mpsnn_loss
