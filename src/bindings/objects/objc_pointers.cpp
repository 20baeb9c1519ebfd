// What passes between this package and other users of Metal in the process: objects as pointers,
// and archives of Apple's keyed archiver.
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "bindings/arguments.hpp"
#include "bindings/definitions.hpp"
#include "bindings/gil.hpp"
#include "bindings/module.hpp"
#include "bindings/objects/kernel_handles.hpp"
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

using metal::ForeignKind;

/// An integer for PyObjC and ctypes, or None.
py::object to_pointer(void* pointer) {
  if (pointer == nullptr) return py::none();
  return py::int_(reinterpret_cast<std::uintptr_t>(pointer));
}

/// Adds objc_pointer to a class; of(foreign, instance) finds the object behind an instance.
template <class T, class... Options, class Of>
void define_pointer(py::class_<T, Options...> type, Of of, const char* what) {
  type.def_property_readonly(
      "objc_pointer",
      [of](const T& instance) {
        return to_pointer(foreign() != nullptr ? of(*foreign(), instance) : nullptr);
      },
      (std::string(what) + " as an integer, borrowed; None on the CPU engine.").c_str());
}

/// The device that an object from outside is, or belongs to. Throws where there is no Metal.
std::shared_ptr<Device> owner_of(ForeignKind kind, void* object) {
  std::string reason;
  const auto devices = metal_devices(reason);
  if (devices.empty()) throw StateError("from_objc_pointer needs Metal: " + reason);
  for (const auto& device : devices) {
    if (foreign()->owns(*device, kind, object)) return device;
  }
  throw ValueError(refusal("pointer", "be of a device in devices()", "another"));
}

template <class Kind, class... Bases>
py::class_<Kind, Bases...> registered(py::module_& m, const char* name) {
  return py::class_<Kind, Bases...>(m.attr(name));
}

/// Metal's functions for what is of this device.
const metal::Foreign& foreign_of(const Device& device) {
  if (foreign() == nullptr || foreign()->device_pointer(device) == nullptr)
    throw StateError("this needs a Metal device, and the device is " + device.name());
  return *foreign();
}

template <class Handle, class Base>
void define_archives(py::module_& m) {
  auto type = registered<Handle, Base>(m, class_name(Handle::kind));
  add_method<[](const Handle& handle) {
    const Kernel& kernel = *handle.kernel;
    return py::bytes(foreign_of(*kernel.device()).archived_data(kernel));
  }>(type,
     R"(archived_data($self)
--

The archive of Apple's NSKeyedArchiver as bytes, for MPSKeyedUnarchiver; its contents are Apple's own.
Raises RuntimeError without Metal; to_bytes is the portable archive.)");
  add_function<[](py::handle data, py::handle device) {
    const auto& target = to_device("device", device);
    const HeldBytes bytes("data", data);
    Handle handle;
    handle.kernel = foreign_of(*target).unarchive_kernel(target, Handle::kind, bytes.get());
    return handle;
  }>(type,
     R"(from_archived_data(data, device)
--

A kernel from an archive of NSKeyedArchiver, on `device` (MPSKeyedUnarchiver).
Raises ValueError for anything that does not hold a kernel of this class, RuntimeError without Metal.)");
}

constexpr const char* kErrors =
    "\n`pointer` is an int or an object of PyObjC (with __c_void_p__()).\n"
    "Raises TypeError for an object of another class, ValueError for one that cannot be worked "
    "with, RuntimeError without Metal.\n"
    "An int that is no object's address ends the process.";

/// Adds from_objc_pointer to a class; adopt(device, object) is the instance on an object of the
/// device.
template <ForeignKind kind, auto adopt>
void define_adoption(py::handle type, const char* what) {
  add_function<[](py::handle pointer) {
    void* const object = to_object_pointer(pointer);
    return adopt(owner_of(kind, object), object);
  }>(type, std::string("from_objc_pointer(pointer)\n--\n\n") + what + kErrors);
}

}  // namespace

void register_objc_pointers(py::module_& m) {
  using metal::Foreign;
  const auto device = registered<Device, std::shared_ptr<Device>>(m, "Device");
  const auto queue = registered<Queue, std::shared_ptr<Queue>>(m, "CommandQueue");
  const auto buffer = registered<CommandBuffer, std::shared_ptr<CommandBuffer>>(m, "CommandBuffer");
  const auto image = registered<Image>(m, "MPSImage");
  const auto batch = registered<ImageBatch, std::shared_ptr<ImageBatch>>(m, "MPSImageBatch");
  using Owner = std::shared_ptr<Device>;
  define_adoption<ForeignKind::device, [](Owner owner, void*) { return owner; }>(
      device, "The one of devices() that an id<MTLDevice> is.");
  define_adoption<ForeignKind::queue,
                  [](Owner owner, void* object) {
                    return foreign()->adopt_queue(std::move(owner), object);
                  }>(
      queue,
      R"(A CommandQueue on an existing id<MTLCommandQueue>, retained. It may allow fewer open command buffers than the 64 of a
usual one, and cannot be asked: whoever opens more waits for ever. All who wrap one queue share its count here.)");
  define_adoption<ForeignKind::command_buffer,
                  [](Owner owner, void* object) {
                    return foreign()->adopt_command_buffer(std::move(owner), object);
                  }>(
      buffer,
      "A CommandBuffer on an existing id<MTLCommandBuffer> (or MPSCommandBuffer) that is "
      "not committed, retained: to encode into\n"
      "somebody else's buffer. Either side may commit it, once. Results are images, "
      "readable once it has completed; arrays as\n"
      "destinations raise TypeError, as nobody would fill them. After commitAndContinue "
      "adopt it again.");
  define_adoption<ForeignKind::image,
                  [](Owner owner, void* object) {
                    return Image{
                        foreign()->adopt_images(std::move(owner), ForeignKind::image, object), 0};
                  }>(
      image,
      R"(An existing MPSImage of float16 or float32, retained. Work that others encoded on it is theirs to synchronise and to
wait for. Temporary images and those in private storage can be encoded with, and raise RuntimeError when read.)");
  define_adoption<ForeignKind::image_batch,
                  [](Owner owner, void* object) {
                    return foreign()->adopt_images(std::move(owner), ForeignKind::image_batch,
                                                   object);
                  }>(
      batch,
      "The images of an NSArray of MPSImage (MPSImageBatch), or those in one MPSImage of "
      "several, retained.");
  define_pointer(
      device, [](const Foreign& f, const Device& d) { return f.device_pointer(d); },
      "The id<MTLDevice>");
  define_pointer(
      queue, [](const Foreign& f, const Queue& q) { return f.queue_pointer(q); },
      "The id<MTLCommandQueue>");
  define_pointer(
      buffer,
      [](const Foreign& f, const CommandBuffer& b) {
        const WithoutGil released;  // another thread may be making it
        return f.command_buffer_pointer(b);
      },
      "The id<MTLCommandBuffer>");
  define_pointer(
      registered<KernelHandle>(m, "MPSKernel"),
      [](const Foreign& f, const KernelHandle& h) { return f.kernel_pointer(*h.kernel); },
      "The kernel object");
  define_pointer(
      image, [](const Foreign& f, const Image& i) { return f.image_pointer(i); }, "The MPSImage");
  define_archives<ForwardLoss, CNNKernel>(m);
  define_archives<LossGradient, CNNBinaryKernel>(m);
  define_archives<InitialGradient, CNNKernel>(m);
}

}  // namespace mpsnn_loss::bindings
