// MPSImage and MPSImageBatch: images as Python objects and as sequences. As arrays:
// image_arrays.cpp.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/arrays.hpp"
#include "bindings/definitions.hpp"
#include "bindings/instances.hpp"
#include "bindings/module.hpp"
#include "bindings/objects/descriptors.hpp"
#include "bindings/objects/image_arguments.hpp"
#include "bindings/objects/image_arrays.hpp"
#include "bindings/objects/kernel_handles.hpp"
#include "bindings/objects/owners.hpp"
#include "core/error.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

py::array to_array(const ImageBatch& batch, py::handle out) {
  batch.check_readable();
  const auto axes = batch.shape().axes();
  const Format format = batch.descriptor().format;
  const std::span<const std::int64_t> shape(axes);
  if (out.is_none()) {
    py::array fresh = make_array(shape, format);
    batch.download(0, batch.shape().images, static_cast<std::byte*>(fresh.mutable_data()));
    return fresh;
  }
  HostArray destination;
  destination.take_destination("out", out);
  destination.require_destination(format);
  require_axes(destination.view(), shape);
  batch.download(0, batch.shape().images, static_cast<std::byte*>(destination.data()));
  return py::reinterpret_borrow<py::array>(out);
}

std::int64_t place_of(const ImageBatch& batch, py::handle value) {
  const std::int64_t count = batch.shape().images;
  std::int64_t index = count;
  try {
    index = to_integer("index", value);
  } catch (const ValueError&) {  // beyond 64 bits
  }
  if (index < -count || index >= count) {
    throw py::index_error("image index " + describe(value) + " is out of range for " +
                          std::to_string(count) + " images");
  }
  return index < 0 ? index + count : index;
}

py::object get_item(const BatchPointer& batch, py::object key) {
  if (!py::isinstance<py::slice>(key)) return py::cast(image_at(batch, place_of(*batch, key)));
  py::list images;
  py::ssize_t start = 0, stop = 0, step = 0, length = 0;
  if (!py::cast<py::slice>(key).compute(batch->shape().images, &start, &stop, &step, &length))
    throw py::error_already_set();
  for (py::ssize_t i = 0; i < length; ++i) images.append(image_at(batch, start + i * step));
  return images;
}

std::string shape_text(const BatchDescriptor& d) {
  return to_string(d.shape) + " " + info(d.format).name;
}

/// Copies between [H, W, C] and [C, H, W].
void transpose(const Shape& shape, std::int64_t size, const std::byte* from, std::byte* to,
               bool to_planes) {
  for (std::int64_t p = 0; p < shape.pixels(); ++p) {
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      const std::int64_t packed = p * shape.channels + c, planar = c * shape.pixels() + p;
      std::memcpy(to + (to_planes ? planar : packed) * size,
                  from + (to_planes ? packed : planar) * size, static_cast<std::size_t>(size));
    }
  }
}

constexpr std::uint64_t kPlanes = 1;  // MPSDataLayout.FEATURE_CHANNELS_X_HEIGHT_X_WIDTH

void check_image_index(py::handle value) {
  if (const std::int64_t index = to_integer("image_index", value); index != 0) {
    throw ValueError(
        refusal("image_index", "be 0, as an image of a batch is one image", std::to_string(index)));
  }
}

py::bytes read_bytes(const Image& image, py::handle data_layout, py::handle image_index) {
  const std::uint64_t layout = to_member_value(kDataLayout, "data_layout", data_layout);
  check_image_index(image_index);
  image.batch->check_readable({image.index, 1});
  const BatchDescriptor& d = image.batch->descriptor();
  std::vector<std::byte> bytes(static_cast<std::size_t>(d.image_bytes()));
  image.batch->download(image.index, 1, bytes.data());
  if (layout == kPlanes) {
    const std::vector<std::byte> packed = bytes;
    transpose(d.shape, info(d.format).size, packed.data(), bytes.data(), true);
  }
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_bytes(const Image& image, py::handle data, py::handle data_layout,
                 py::handle image_index) {
  const std::uint64_t layout = to_member_value(kDataLayout, "data_layout", data_layout);
  check_image_index(image_index);
  const BatchDescriptor& d = image.batch->descriptor();
  if (!image.batch->writable())
    throw ValueError("the image borrows read-only memory and must not be written");
  image.batch->check_readable({image.index, 1});
  const HeldBytes bytes("data", data);
  const std::string_view view = bytes.get();
  if (static_cast<std::int64_t>(view.size()) != d.image_bytes()) {
    throw ValueError(refusal(
        "data", "have " + std::to_string(d.image_bytes()) + " bytes, one image of " + shape_text(d),
        std::to_string(view.size())));
  }
  const auto* from = reinterpret_cast<const std::byte*>(view.data());
  std::vector<std::byte> packed;
  if (layout == kPlanes) {
    packed.resize(view.size());
    transpose(d.shape, info(d.format).size, from, packed.data(), false);
    from = packed.data();
  }
  image.batch->upload(image.index, 1, from);
}

BatchPointer from_array(py::handle device, py::handle array) {
  return images_of_array("array", array, to_device("device", device));
}

void register_batch(py::module_& m) {
  const auto protocol = py::custom_type_setup([](PyHeapTypeObject* type) {
    refuse_new_instances(type);
    collect_images(type);
    set_buffer_protocol<BatchPointer>(type);
  });
  py::class_<ImageBatch, BatchPointer> type(m, "MPSImageBatch", protocol,
                                            R"(MPSImageBatch()
--

N images of one size and format on a device: a Sequence of MPSImage, and an array [N, H, W, C]
(buffer protocol, __array__ and DLPack, without a copy on the CPU engine).)");
  add_function<from_array>(type,
                           R"(from_array(device, array)
--

An MPSImageBatch from an array [N, H, W, C] or [N, C] of a storage format. The CPU engine borrows a C-contiguous array
without a copy and keeps it alive; other layouts are copied.)");
  add_method<to_array>(type,
                       R"(to_array($self, out=None)
--

A NumPy array [N, H, W, C], always a fresh copy, or `out` filled. Raises RuntimeError before the writing command
buffer has completed.)");
  type.def_property_readonly(
      "shape", [](const ImageBatch& b) { return py::tuple(py::cast(b.shape().axes())); },
      "(N, H, W, C).");
  type.def_property_readonly(
      "dtype", [](const ImageBatch& b) { return to_dtype(b.descriptor().format); },
      "NumPy dtype of the storage.");
  type.def_property_readonly("device", &ImageBatch::device, "The Device of the images.");
  type.def(
      "__len__", [](const ImageBatch& b) { return b.shape().images; }, "__len__(self)\n--\n\n");
  type.def("__getitem__", &get_item, py::arg("index"), "__getitem__(self, index)\n--\n\n");
  type.def(
      "__contains__",
      [](const BatchPointer& b, py::object x) {
        if (!is_instance<Image>(x)) return false;
        const auto& image = py::cast<const Image&>(x);
        for (std::int64_t i = 0; i < b->shape().images; ++i) {
          if (b->storage(i) == image.batch->storage(image.index)) return true;
        }
        return false;
      },
      "__contains__(self, image, /)\n--\n\n");
  define_array_protocols<BatchPointer>(type);
  type.def(
      "__repr__",
      [](const ImageBatch& b) {
        return "<MPSImageBatch " + shape_text(b.descriptor()) + " on '" + b.device()->name() + "'>";
      },
      kReprSignature);
  attach_when_made<ImageBatch>(type);
  // The rest of the protocol (iteration, index, count, reversed) is the mixin's.
  const py::object sequence = py::module_::import("collections.abc").attr("Sequence");
  sequence.attr("register")(type);
  for (const char* name : {"__iter__", "__reversed__", "index", "count"})
    type.attr(name) = sequence.attr(name);
}

void define_identity(py::class_<Image>& type) {
  type.def(
      "__eq__",
      [](const Image& a, py::object b) {
        if (!is_instance<Image>(b)) return false;
        const auto& other = py::cast<const Image&>(b);
        return a.batch->storage(a.index) == other.batch->storage(other.index);
      },
      kEqSignature);
  type.def(
      "__hash__",
      [](const Image& i) {
        const auto [storage, index] = i.batch->storage(i.index);
        return py::hash(py::make_tuple(reinterpret_cast<std::uintptr_t>(storage), index));
      },
      "__hash__(self)\n--\n\n");
  type.def(
      "__repr__",
      [](const Image& i) {
        const std::string label = i.batch->label(i.index);
        return "<MPSImage " + (label.empty() ? "" : "'" + label + "' ") +
               std::to_string(i.batch->shape().width) + "x" +
               std::to_string(i.batch->shape().height) + "x" +
               std::to_string(i.batch->shape().channels) + " " +
               info(i.batch->descriptor().format).name + " on '" + i.batch->device()->name() + "'>";
      },
      kReprSignature);
}

}  // namespace

void register_images(py::module_& m) {
  register_batch(m);
  py::class_<Image> type(m, "MPSImage", py::custom_type_setup([](PyHeapTypeObject* heap) {
                           set_apart(heap);
                           collect_images(heap);
                           set_buffer_protocol<Image>(heap);
                         }),
                         R"(MPSImage(device, descriptor)
--

One image of a batch. Equal where it is the same image of the same storage. As an array it is [H, W, C].)");
  refuse_empty_instances(type);
  attach_when_made<Image>(type);
  add_constructor<[](py::handle device, py::handle descriptor) {
    const auto& target = to_device("device", device);
    const BatchDescriptor& d =
        to_object<ImageDescriptor>("descriptor", "an MPSImageDescriptor", descriptor).batch;
    check_shape("descriptor", d);
    target->check_images("descriptor", d);
    return Image{target->make_images(d), 0};
  }>(type, "A zero-filled image.");
  define_array_protocols<Image>(type);
  const auto define_size = [&](const char* name, std::int64_t Shape::* field, const char* doc) {
    type.def_property_readonly(
        name, [field](const Image& i) { return i.batch->shape().*field; }, doc);
  };
  define_size("width", &Shape::width, "Pixels per row.");
  define_size("height", &Shape::height, "Rows.");
  define_size("feature_channels", &Shape::channels, "Channels per pixel.");
  type.def_property_readonly(
      "channel_format", [](const Image& i) { return info(i.batch->descriptor().format).name; },
      "Storage format of one element.");
  type.def_property_readonly(
      "device", [](const Image& i) { return i.batch->device(); }, "The Device of the image.");
  type.def_property(
      "label", [](const Image& i) { return to_optional(i.batch->label(i.index)); },
      [](const Image& i, py::object label) {
        i.batch->set_label(i.index, to_label(label).value_or(""));
      },
      "A name for debugging, or None.");
  add_method<read_bytes>(type,
                         R"(read_bytes($self, data_layout=0, image_index=0)
--

The elements of the image as bytes in its storage format, [H, W, C] or (data_layout 1) [C, H, W].
Raises RuntimeError before the writing command buffer has completed.)");
  add_method<write_bytes>(type,
                          R"(write_bytes($self, data, data_layout=0, image_index=0)
--

Fills the image from a buffer of exactly its bytes, in its storage format.)");
  define_identity(type);
}

}  // namespace mpsnn_loss::bindings
