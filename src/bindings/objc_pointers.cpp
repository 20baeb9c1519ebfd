// What passes between this package and other users of Metal in the process: objects as pointers,
// and archives of Apple's keyed archiver.
#include <pybind11/pybind11.h>

#include <string>

#include "bindings/arguments.hpp"
#include "bindings/errors.hpp"
#include "bindings/kernel_handles.hpp"
#include "bindings/module.hpp"
#include "core/error.hpp"
#include "devices.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// The address in an int, or in an object of PyObjC.
void* to_object_pointer(py::handle value) {
  constexpr const char* kExpectation = "be an int or an object with __c_void_p__()";
  py::object address = py::reinterpret_borrow<py::object>(value);
  if (const py::object method = find_attribute(value, "__c_void_p__"))
    address = method().attr("value");
  if (address.is_none()) throw ValueError(refusal("pointer", "not be nil", "nil"));
  // A bool or a member of an enumeration is a number, but nobody's address.
  const bool is_other_integer =
      PyLong_Check(address.ptr()) != 0 && PyLong_CheckExact(address.ptr()) == 0;
  if (PyIndex_Check(address.ptr()) == 0 || is_other_integer)
    throw TypeError(refusal("pointer", kExpectation, describe(value)));
  const std::uint64_t word = to_unsigned("pointer", address);
  if (word == 0) throw ValueError(refusal("pointer", "not be nil", "0"));
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(word));
}

/// The device that an object from outside is, or belongs to.
std::shared_ptr<Device> owner_of(ForeignKind kind, void* object) {
  std::string reason;
  const auto devices = metal_devices(reason);
  if (devices.empty()) throw StateError("from_objc_pointer needs Metal: " + reason);
  for (const auto& device : devices) {
    if (device->owns(kind, object)) return device;
  }
  throw ValueError(refusal("pointer", "be of a device in devices()", "another"));
}

template <class Kind, class... Bases>
py::class_<Kind, Bases...> registered(py::module_& m, const char* name) {
  return py::class_<Kind, Bases...>(m.attr(name));
}

template <class Handle, class Base>
void define_archives(py::module_& m) {
  auto type = registered<Handle, Base>(m, class_name(Handle::kind));
  type.def(
      "archived_data",
      [](const Handle& handle) { return py::bytes(handle.kernel->archived_data()); },
      "The archive of Apple's NSKeyedArchiver, for MPSKeyedUnarchiver; its contents are Apple's "
      "own.\n"
      "Raises RuntimeError without Metal; to_bytes is the portable archive.");
  type.def_static(
      "from_archived_data",
      [](py::object data, py::object device) {
        const auto& target = to_device("device", device);
        const HeldBytes bytes("data", data);
        Handle handle;
        handle.kernel = target->unarchive_kernel(Handle::kind, bytes.get());
        return handle;
      },
      py::arg("data"), py::arg("device"),
      "A kernel from an archive of NSKeyedArchiver, on `device` (MPSKeyedUnarchiver).\n"
      "Raises ValueError for anything that does not hold a kernel of this class, RuntimeError "
      "without Metal.");
}

constexpr const char* kErrors =
    " `pointer` is an int or an object of PyObjC (with __c_void_p__()).\n"
    "Raises TypeError for an object of another class, ValueError for one that cannot be worked "
    "with, RuntimeError without Metal.\n"
    "An int that is no object's address ends the process.";

std::string documented(const char* what) { return std::string(what) + kErrors; }

}  // namespace

void register_objc_pointers(py::module_& m) {
  registered<Device, std::shared_ptr<Device>>(m, "Device")
      .def_static(
          "from_objc_pointer",
          [](py::object pointer) {
            return owner_of(ForeignKind::device, to_object_pointer(pointer));
          },
          py::arg("pointer"), documented("The one of devices() that an id<MTLDevice> is.").c_str());
  registered<Queue, std::shared_ptr<Queue>>(m, "CommandQueue")
      .def_static(
          "from_objc_pointer",
          [](py::object pointer) {
            void* const object = to_object_pointer(pointer);
            return owner_of(ForeignKind::queue, object)->adopt_queue(object);
          },
          py::arg("pointer"),
          documented(
              "A CommandQueue on an existing id<MTLCommandQueue>, retained. It may allow fewer "
              "open "
              "command buffers than the 64 of a\n"
              "usual one, and cannot be asked: whoever opens more waits for ever. All who wrap one "
              "queue share its count here.")
              .c_str());
  registered<CommandBuffer, std::shared_ptr<CommandBuffer>>(m, "CommandBuffer")
      .def_static(
          "from_objc_pointer",
          [](py::object pointer) {
            void* const object = to_object_pointer(pointer);
            return owner_of(ForeignKind::command_buffer, object)->adopt_command_buffer(object);
          },
          py::arg("pointer"),
          documented(
              "A CommandBuffer on an existing id<MTLCommandBuffer> (or MPSCommandBuffer) that is "
              "not committed, retained: to encode into\n"
              "somebody else's buffer. Either side may commit it, once. Results are images, "
              "readable once it has completed; arrays as\n"
              "destinations raise TypeError, as nobody would fill them. After commitAndContinue "
              "adopt it again.")
              .c_str());
  registered<Image>(m, "MPSImage")
      .def_static(
          "from_objc_pointer",
          [](py::object pointer) {
            void* const object = to_object_pointer(pointer);
            return Image{
                owner_of(ForeignKind::image, object)->adopt_images(ForeignKind::image, object), 0};
          },
          py::arg("pointer"),
          documented(
              "An existing MPSImage of float16 or float32, retained. Work that others encoded on "
              "it is theirs to synchronise and to\n"
              "wait for. Temporary images and those in private storage can be encoded with, and "
              "raise RuntimeError when read.")
              .c_str());
  registered<ImageBatch, std::shared_ptr<ImageBatch>>(m, "MPSImageBatch")
      .def_static(
          "from_objc_pointer",
          [](py::object pointer) {
            void* const object = to_object_pointer(pointer);
            return owner_of(ForeignKind::image_batch, object)
                ->adopt_images(ForeignKind::image_batch, object);
          },
          py::arg("pointer"),
          documented(
              "The images of an NSArray of MPSImage (MPSImageBatch), or those in one MPSImage of "
              "several, retained.")
              .c_str());
  define_archives<ForwardLoss, CNNKernel>(m);
  define_archives<LossGradient, CNNBinaryKernel>(m);
  define_archives<InitialGradient, CNNKernel>(m);
}

}  // namespace mpsnn_loss::bindings
