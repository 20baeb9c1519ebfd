// Command buffers, of the CPU engine and of every device, and work for them.
#pragma once

#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "objects/host_queue.hpp"
#include "support.hpp"

namespace mpsnn_loss::test {

using Status = CommandBufferStatus;
using Buffer = std::shared_ptr<HostCommandBuffer>;

inline constexpr double kLong = 30;  // seconds; a wait that takes so long has failed

/// Runs the test case once for each device, as a subcase; returns the device.
inline std::shared_ptr<Device> each_device() {
  std::shared_ptr<Device> chosen;
  for (const auto& device : devices()) {
    DOCTEST_SUBCASE(device->name().c_str()) { chosen = device; }
  }
  return chosen;
}

inline std::shared_ptr<Queue> make_queue() { return cpu_device()->make_queue("queue"); }

inline Buffer make_buffer(Queue& queue) {
  return std::dynamic_pointer_cast<HostCommandBuffer>(queue.make_command_buffer("buffer"));
}
inline Buffer make_buffer() { return make_buffer(*make_queue()); }

/// Predictions 2, labels 0.5 and a gradient to be written.
struct Images {
  explicit Images(const Shape& shape = {2, 1, 1, 3},
                  const std::shared_ptr<Device>& device = cpu_device()) {
    const BatchDescriptor d{shape, Format::float32};
    const auto filled = [&](float value) {
      auto images = device->make_images(d);
      const std::vector<float> values(static_cast<std::size_t>(shape.elements()), value);
      images->upload(0, shape.images, reinterpret_cast<const std::byte*>(values.data()));
      return images;
    };
    predictions = filled(2);
    labels = filled(0.5);
    gradient = filled(-1);
    source_gradients = filled(1);
    kernel = device->make_kernel(KernelKind::loss_gradient, descriptor());
  }
  static LossDescriptor descriptor() {
    LossDescriptor d;
    d.loss_type = LossType::mean_squared_error;
    return d;
  }

  Encode call() const {
    Encode call;
    call.kernel = kernel;
    call.predictions = predictions;
    call.labels = labels;
    call.source_gradients = source_gradients;
    call.results = gradient;
    return call;
  }
  float result(std::int64_t image = 0) const {
    std::vector<float> values(static_cast<std::size_t>(gradient->shape().image_elements()));
    gradient->download(image, 1, reinterpret_cast<std::byte*>(values.data()));
    return values.front();
  }

  std::shared_ptr<ImageBatch> predictions, labels, gradient, source_gradients;
  std::shared_ptr<Kernel> kernel;
};

inline constexpr float kBefore = -1, kAfter = 3;  // what result() is before and after the call

inline void encode_failure(const Buffer& buffer, const std::string& words = "out of luck") {
  buffer->encode_work([words] { throw std::runtime_error(words); });
}

/// Names in the order in which work ran, on whatever thread.
class Log {
 public:
  void add(int name) {
    const std::lock_guard lock(mutex_);
    names_.push_back(name);
  }
  std::vector<int> names() const {
    const std::lock_guard lock(mutex_);
    return names_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<int> names_;
};

/// The buffer's work appends `name` to `log`.
inline void encode_log(const Buffer& buffer, Log& log, int name) {
  buffer->encode_work([&log, name] { log.add(name); });
}

}  // namespace mpsnn_loss::test
