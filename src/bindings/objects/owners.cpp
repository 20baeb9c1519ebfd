#include "bindings/objects/owners.hpp"

#include <algorithm>
#include <map>
#include <new>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/errors.hpp"
#include "bindings/gil.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

/// The Python object that holds an array for images. The GIL guards all of it.
struct Lender {
  PyObject base;
  HeldMemory* memory;
  std::weak_ptr<ImageBatch>* images;
  long shown;  // how many of those who hold the images show it to the collector
};

std::map<const ImageBatch*, Lender*>& lenders() {
  static auto& all = *new std::map<const ImageBatch*, Lender*>;
  return all;
}

Lender* lender_of(const ImageBatch* images) {
  if (lenders().empty()) return nullptr;
  const auto found = lenders().find(images);
  return found == lenders().end() ? nullptr : found->second;
}

using Lenders = std::vector<Lender*>;

PyObject* as_object(Lender* lender) { return reinterpret_cast<PyObject*>(lender); }

int traverse_lender(PyObject* self, visitproc visit, void* arg) {
  const auto* const lender = reinterpret_cast<Lender*>(self);
  Py_VISIT(Py_TYPE(self));
  if (lender->memory != nullptr) Py_VISIT(lender->memory->holder());
  if (lender->images->use_count() == lender->shown) Py_VISIT(self);  // the images' own reference
  return 0;
}

void free_lender(PyObject* self) {
  PyObject_GC_UnTrack(self);
  auto* const lender = reinterpret_cast<Lender*>(self);
  PyTypeObject* const type = Py_TYPE(self);
  delete std::exchange(lender->memory, nullptr);
  delete lender->images;
  type->tp_free(self);
  Py_DECREF(type);
}

PyTypeObject* make_lender_type() {
  static PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_lender)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(free_lender)},
                                {0, nullptr}};
  static PyType_Spec spec{"mpsnn_loss._core._Lender", static_cast<int>(sizeof(Lender)), 0,
                          Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
  return reinterpret_cast<PyTypeObject*>(checked(PyType_FromSpec(&spec)));
}
PyTypeObject* lender_type() { return made_once<make_lender_type>(); }

Lender* make_lender(HeldMemory memory) {
  auto held = std::make_unique<HeldMemory>(std::move(memory));
  auto images = std::make_unique<std::weak_ptr<ImageBatch>>();
  auto* const lender = reinterpret_cast<Lender*>(PyType_GenericAlloc(lender_type(), 0));
  if (lender == nullptr) throw py::error_already_set();
  lender->memory = held.release();
  lender->images = images.release();
  return lender;
}

/// The images are gone, or need the memory no longer.
void give_back(Lender* lender) {
  std::erase_if(lenders(), [&](const auto& entry) { return entry.second == lender; });
  Py_DECREF(as_object(lender));
}

/// Lets go of what an owner holds, on any thread. Once the interpreter has ended, it stays.
template <auto let_go>
void with_gil(void* held) {
  if (interpreter_has_ended()) return;
  const WithGil gil;
  let_go(held);
}

MemoryOwner keeper_of(HeldMemory memory) {
  if (memory.array && memory.converted == nullptr) {  // else not all of it is one object of Python
    return {memory.array.release().ptr(),
            with_gil<[](void* array) { Py_DECREF(static_cast<PyObject*>(array)); }>};
  }
  return {new HeldMemory(std::move(memory)),
          with_gil<[](void* held) { delete static_cast<HeldMemory*>(held); }>};
}

/// What follows pybind11's part of an instance (set_apart).
template <class T>
T*& slot(PyObject* self) {
  return *reinterpret_cast<T**>(reinterpret_cast<char*>(self) + sizeof(py::detail::instance));
}

}  // namespace

std::shared_ptr<ImageBatch> borrow(Device& device, const BatchDescriptor& descriptor,
                                   std::byte* data, bool writable, HeldMemory memory) {
  if (PyObject_IS_GC(memory.holder()) ==
      0)  // an array or a capsule, which is never part of a cycle
    return device.wrap_images(descriptor, data, writable, keeper_of(std::move(memory)));
  Lender* const lender = make_lender(std::move(memory));
  MemoryOwner owner(lender, with_gil<[](void* held) { give_back(static_cast<Lender*>(held)); }>);
  const auto kept = py::reinterpret_borrow<py::object>(as_object(lender));
  auto images = device.wrap_images(descriptor, data, writable, std::move(owner));
  *lender->images = images;
  if (kept.ref_count() > 1) lenders()[images.get()] = lender;  // else the device took a copy
  return images;
}

void attach_images(PyObject* self, const ImageBatch& images) {
  Lender* const lender = lender_of(&images);
  if (lender == nullptr) return;
  Py_INCREF(as_object(lender));
  ++lender->shown;
  slot<Lender>(self) = lender;
}

void collect_images(PyHeapTypeObject* heap) {
  heap->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
  heap->ht_type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(as_object(slot<Lender>(self)));
    return 0;
  };
  heap->ht_type.tp_clear = [](PyObject*) { return 0; };
  heap->ht_type.tp_dealloc = [](PyObject* self) {
    Lender* const lender = std::exchange(slot<Lender>(self), nullptr);
    if (lender != nullptr) --lender->shown;
    py::detail::pybind11_object_dealloc(self);
    Py_XDECREF(as_object(lender));
  };
}

bool lends_memory() { return !lenders().empty(); }

void attach_call(PyObject* buffer, const Encode& call) noexcept {
  // Of a buffer that others may commit, too, the calls are not its Python object's own.
  if (contents<CommandBuffer>(buffer)->owners() != 1) return;
  try {
    auto*& shown = slot<Lenders>(buffer);
    if (shown == nullptr) shown = new Lenders;
    const auto show = [&](const char*, const ImageBatch& images) {
      Lender* const lender = lender_of(&images);
      if (lender == nullptr) return;
      shown->push_back(lender);
      Py_INCREF(as_object(lender));
      ++lender->shown;
    };
    for_each_input(call, show);
    show("", *call.results);
  } catch (const std::bad_alloc&) {  // the collector sees less, and keeps more
  }
}

void detach_calls(PyObject* buffer) noexcept {
  const std::unique_ptr<Lenders> shown(std::exchange(slot<Lenders>(buffer), nullptr));
  if (shown == nullptr) return;
  for (Lender* const lender : *shown) --lender->shown;
  for (Lender* const lender : *shown) Py_DECREF(as_object(lender));
}

int traverse_calls(PyObject* buffer, visitproc visit, void* arg) {
  if (const auto* const shown = slot<Lenders>(buffer)) {
    for (Lender* const lender : *shown) Py_VISIT(as_object(lender));
  }
  return 0;
}

}  // namespace mpsnn_loss::bindings
