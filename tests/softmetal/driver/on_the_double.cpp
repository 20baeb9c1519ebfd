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

LossRequest kernel_request(const std::shared_ptr<Kernel>& kernel, const Problem& problem,
                           const Inputs& in) {
  Device& device = *kernel->device();
  LossRequest r;
  r.kernel = kernel;
  r.descriptor = kernel->descriptor();
  r.wrt = kernel->properties().compute_label_gradients ? Wrt::labels : Wrt::predictions;
  r.predictions = make_operand("predictions", upload(device, problem.shape, in.predictions));
  r.labels = make_operand("labels", upload(device, problem.shape, in.labels));
  if (problem.weights)
    r.weights = make_operand("weights", upload(device, *problem.weights, in.weights));
  if (kernel->kind() == KernelKind::forward_loss) {
    r.work = Work::loss;
    const BatchDescriptor d{loss_shape(r.descriptor, problem.shape),
                            info(problem.formats.predictions).of_losses};
    r.loss = make_operand("loss", device.make_images(d));
    return r;
  }
  r.work = Work::gradient;
  if (problem.gradients) {
    r.source_gradients =
        make_operand("source_gradients", upload(device, *problem.gradients, in.gradients));
  } else {
    const Shape shape = loss_shape(r.descriptor, problem.shape);
    r.source_gradients =
        make_operand("source_gradients", filled(device, shape, problem.source_gradient));
  }
  r.gradient = make_operand("gradient", device.make_images({problem.shape, gradient_format(r)}));
  return r;
}

std::shared_ptr<LossState> empty_state(const std::shared_ptr<Device>& device) {
  auto state = std::make_shared<LossState>();
  state->device = device;
  return state;
}

Array run_alone(Device& device, const LossRequest& request) {
  const Buffer buffer = device.make_queue("")->make_command_buffer("");
  buffer->encode(LossCall(request));
  buffer->commit();
  buffer->wait(kLong);
  return download(*(request.work == Work::loss ? request.loss : request.gradient).images);
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
