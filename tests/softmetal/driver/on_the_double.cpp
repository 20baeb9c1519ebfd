#include "on_the_double.hpp"

#include <algorithm>
#include <cmath>

namespace mpsnn_loss::test {
namespace {

std::string live_objects() {
  char text[1024];
  softmetal_describe_live_objects(text, sizeof text);
  return text;
}

}  // namespace

std::string rules_broken() {
  std::string all;
  for (std::size_t i = 0; i < softmetal_violations(); ++i) {
    all += std::string(all.empty() ? "" : ", ") + softmetal_violation_rule(i);
  }
  return all;
}

OnTheDouble::OnTheDouble() {
  softmetal_clear_faults();
  softmetal_clear_violations();
  live_before_ = softmetal_live_objects(nullptr);  // none, unless a test before this one failed
  std::string reason;
  const auto devices = metal::make_devices(reason);
  REQUIRE_MESSAGE(devices.size() == 1, reason);
  device = devices.front();
}

OnTheDouble::~OnTheDouble() {
  softmetal_clear_faults();
  device.reset();
  CHECK(rules_broken() == "");
  // A thread of the double lets go of a buffer a moment after those who wait for it.
  const bool gone = eventually([&] { return softmetal_live_objects(nullptr) <= live_before_; });
  CHECK_MESSAGE(gone, "live objects: ", live_objects());
}

Images upload(Device& device, const Shape& shape, const Array& values) {
  Images images = device.make_images({shape, values.format()});
  images->upload(0, shape.images, values.data());
  return images;
}

Images filled(Device& device, const Shape& shape, double value, Format format) {
  Array values(format, shape.elements(), 0);
  for (std::int64_t i = 0; i < values.count(); ++i) values.set(i, value);
  return upload(device, shape, values);
}

Array download(const ImageBatch& images) {
  images.check_readable();
  Array values(images.descriptor().format, images.shape().elements(), 0);
  images.download(0, images.shape().images, values.data());
  return values;
}

std::shared_ptr<Kernel> make_kernel(Device& device, KernelKind kind, const Problem& problem) {
  auto kernel = device.make_kernel(kind, problem.descriptor);
  kernel->update([&](KernelProperties& p) {
    p.compute_label_gradients = kind == KernelKind::loss_gradient && problem.wrt == Wrt::labels;
  });
  return kernel;
}

Encode kernel_encode(const std::shared_ptr<Kernel>& kernel, const Problem& problem,
                     const Inputs& in) {
  Device& device = *kernel->device();
  Encode call;
  call.kernel = kernel;
  call.predictions = upload(device, problem.shape, in.predictions);
  call.labels = upload(device, problem.shape, in.labels);
  if (problem.weights) call.weights = upload(device, *problem.weights, in.weights);
  if (kernel->kind() == KernelKind::loss_gradient) {
    call.source_gradients = problem.gradients
                                ? upload(device, *problem.gradients, in.gradients)
                                : filled(device, loss_shape(problem.descriptor, problem.shape),
                                         problem.source_gradient);
  }
  Request request = request_of(*kernel);
  request.predictions = call.predictions->operand("");
  request.labels = call.labels->operand("");
  call.results = device.make_images(result_descriptor(request));
  return call;
}

Array run_alone(Device& device, const Encode& call) {
  const Buffer buffer = device.make_queue("")->make_command_buffer("");
  const Images results = buffer->encode(call);
  buffer->commit();
  buffer->wait(kLong);
  return download(*results);
}

void check_near(const Array& given, const Array& expected, const std::string& what) {
  CAPTURE(what);
  REQUIRE(given.format() == expected.format());
  REQUIRE(given.count() == expected.count());
  double largest = 0, furthest = 0;
  for (std::int64_t i = 0; i < given.count(); ++i) {
    const double x = given.get(i), y = expected.get(i);
    if (x == y) continue;  // infinities among them
    if (std::isfinite(y)) largest = std::max(largest, std::fabs(y));
    const double distance = std::fabs(x - y);
    furthest = distance <= furthest ? furthest : distance;  // std::max would lose a NaN
  }
  const double tolerance = given.format() == Format::float16 ? 1e-3 : 2e-6;
  CHECK(furthest <= tolerance * largest);
}

}  // namespace mpsnn_loss::test
