// The Metal engine with the double as its device, and what must hold after every test.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "../../cpp/problem.hpp"
#include "metal/device.hpp"
#include "metal/foreign.hpp"
#include "softmetal.h"

namespace mpsnn_loss::test {

using Status = CommandBufferStatus;
using Images = std::shared_ptr<ImageBatch>;
using Buffer = std::shared_ptr<CommandBuffer>;

inline constexpr double kLong = 30;  // seconds; a wait that takes so long has failed

/// A fixture with a device of its own. At the end every rule has been kept, and every object of the
/// double has gone.
class OnTheDouble {
 protected:
  OnTheDouble();
  ~OnTheDouble();
  OnTheDouble(const OnTheDouble&) = delete;
  OnTheDouble& operator=(const OnTheDouble&) = delete;

  Buffer make_buffer() const { return device->make_queue("queue")->make_command_buffer("buffer"); }

  std::shared_ptr<Device> device;
  const metal::Foreign& foreign = metal::kForeign;

 private:
  std::size_t live_before_ = 0;
};

/// A fault that is on as long as this lives: after `skip` occasions, for `count` (0: all).
class Fault {
 public:
  explicit Fault(const char* name, double value = 1, unsigned skip = 0, unsigned count = 0)
      : name_(name) {
    REQUIRE(softmetal_set_fault_window(name, value, skip, count) == 1);
  }
  ~Fault() { softmetal_clear_fault(name_); }
  Fault(const Fault&) = delete;
  Fault& operator=(const Fault&) = delete;

  std::size_t strikes() const { return softmetal_fault_strikes(name_); }

 private:
  const char* const name_;
};

template <class Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 10000 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return condition();
}

/// The rules broken since the last test, oldest first.
std::string rules_broken();

/// New images with these elements.
Images upload(Device& device, const Shape& shape, const Array& values);
/// New images with one value everywhere.
Images filled(Device& device, const Shape& shape, double value, Format format = Format::float32);
Array download(const ImageBatch& images);

/// A kernel of this class with the properties of the problem.
std::shared_ptr<Kernel> make_kernel(Device& device, KernelKind kind, const Problem& problem);
/// An encode of a kernel for a problem; the results are new images.
Encode kernel_encode(const std::shared_ptr<Kernel>& kernel, const Problem& problem,
                     const Inputs& in);
/// Encodes, commits, waits, and reads the result.
Array run_alone(Device& device, const Encode& call);

/// A gradient of (2 - 0.5)², which is 3.
struct Gradient {
  explicit Gradient(const std::shared_ptr<Device>& device) {
    const Shape shape{2, 1, 1, 3};
    Problem problem{descriptor_of(LossType::mean_squared_error, ReductionType::none)};
    problem.descriptor.parameters.weight = 1;
    call.kernel = make_kernel(*device, KernelKind::loss_gradient, problem);
    call.predictions = filled(*device, shape, 2);
    call.labels = filled(*device, shape, 0.5);
    call.source_gradients = filled(*device, shape, 1);
    call.results = filled(*device, shape, -1);
  }
  double result() const { return download(*call.results).get(5); }

  Encode call;
};

/// Each element of `given` is near that of `expected`, measured at the largest of them.
void check_near(const Array& given, const Array& expected, const std::string& what);

}  // namespace mpsnn_loss::test
