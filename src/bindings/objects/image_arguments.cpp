#include "bindings/objects/image_arguments.hpp"

#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/objects/owners.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// `data` is the array's own, or what the array keeps.
std::shared_ptr<ImageBatch> wrap_array(const char* name, HostArray& array,
                                       const BatchDescriptor& descriptor, std::byte* data,
                                       const std::shared_ptr<Device>& device) {
  device->check_images(name, descriptor);
  return borrow(*device, descriptor, data, array.writable(), array.hand_over());
}

}  // namespace

BatchDescriptor to_batch(const char* name, std::span<const std::int64_t> axes, Format format) {
  if (axes.size() != 4 && axes.size() != 2) {
    throw ValueError(
        refusal(name, "have shape [N, H, W, C] or [N, C]", to_string(axes.data(), axes.size())));
  }
  const bool flat = axes.size() == 2;
  const BatchDescriptor descriptor{
      {axes[0], flat ? 1 : axes[1], flat ? 1 : axes[2], axes[flat ? 1 : 3]}, format};
  check_shape(name, descriptor);
  return descriptor;
}

ImageArgument::ImageArgument(const char* name, py::handle value) : name_(name) {
  if (is_instance<ImageBatch>(value)) {
    images_ = py::cast<std::shared_ptr<ImageBatch>>(value);
  } else if (array_.emplace().take_memory(name, value)) {
    may_have_run_code_ = array_->may_have_run_code();
    descriptor_ = to_batch(name, array_->axes(), array_->require_in_place());
  } else {
    array_.reset();
    may_have_run_code_ = true;
    std::vector<Image> images;
    for_each_item(name, "an MPSImageBatch, a sequence of MPSImage or an array", value,
                  [&](py::handle item, const std::string& item_name) {
                    images.push_back(to_object<Image>(item_name.c_str(), "an MPSImage", item));
                  });
    images_ = gather_images(name, std::move(images));
  }
}

void ImageArgument::check_unchanged() const {
  if (array_) array_->check_unchanged();
}

std::shared_ptr<ImageBatch> ImageArgument::images(const std::shared_ptr<Device>& device) {
  if (images_ != nullptr) return images_;
  return wrap_array(name_, *array_, descriptor_, array_->data(), device);
}

std::shared_ptr<ImageBatch> to_images(const char* name, py::handle value,
                                      const std::shared_ptr<Device>& device) {
  return ImageArgument(name, value).images(device);
}

std::shared_ptr<ImageBatch> images_of_array(const char* name, py::handle value,
                                            const std::shared_ptr<Device>& device) {
  if (is_instance<ImageBatch>(value)) return to_images(name, value, device);
  HostArray array;
  array.take(name, value);
  const auto format = storage_format(array.type());
  if (!format || array.is_in_place(*format)) array.require_in_place();
  const BatchDescriptor descriptor = to_batch(name, array.axes(), *format);
  std::byte* const data = array.is_in_place(*format)
                              ? array.data()
                              : array.converted(*format, array.strided(), Underflow::to_zero);
  return wrap_array(name, array, descriptor, data, device);
}

}  // namespace mpsnn_loss::bindings
