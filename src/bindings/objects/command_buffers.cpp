// CommandBuffer.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/compute.hpp"
#include "bindings/definitions.hpp"
#include "bindings/errors.hpp"
#include "bindings/gil.hpp"
#include "bindings/instances.hpp"
#include "bindings/module.hpp"
#include "bindings/objects/kernel_handles.hpp"
#include "bindings/objects/owners.hpp"
#include "core/error.hpp"
#include "core/floating_point.hpp"
#include "devices.hpp"
#include "objects/completion.hpp"

namespace py = pybind11;

namespace mpsnn_loss::bindings {
namespace {

using BufferPointer = std::shared_ptr<CommandBuffer>;

/// Asks what waits for encodes of other threads. Those of a GPU may wait for the end of other
/// buffers, whose handlers and images need the GIL.
template <class Question>
auto ask(const CommandBuffer& buffer, Question question) {
  if (buffer.device() == cpu_device()) return question();
  const WithoutGil released;
  return question();
}

/// Waits in slices, so that an interrupt from the keyboard is answered.
void wait_in_slices(CommandBuffer& buffer, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr double kSlice = 0.1;
  const auto begin = Clock::now();
  for (;;) {
    const double left = seconds - std::chrono::duration<double>(Clock::now() - begin).count();
    const double slice = std::clamp(left, 0.0, kSlice);
    {
      const WithoutGil released;
      if (buffer.finished_within(slice) || left <= kSlice) return buffer.wait(0);
    }
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

void wait(CommandBuffer& buffer, py::handle timeout) {
  double seconds = std::numeric_limits<double>::infinity();
  if (given(timeout)) {
    seconds = to_real("timeout", timeout);
    if (!(seconds >= 0))
      throw ValueError(refusal("timeout", "be at least 0 seconds or None", describe(timeout)));
  }
  const bool is_finished = ask(buffer, [&] { return buffer.finished_within(0); });
  if (is_finished) return buffer.throw_error();
  // Seconds are counted in floating point, which the caller may have set to trap.
  in_default_floating_point([&] { wait_in_slices(buffer, seconds); });
}

/// The completed handlers of one buffer. Until the buffer is committed nothing but its Python
/// object keeps them, and the collector sees them through it: a handler may close over its own
/// buffer. Those of a committed buffer that waits for an open one are kept by that one likewise: a
/// handler may close over it, and nobody else may be left to commit it.
class Handlers {
 public:
  /// Those of a buffer that has some, else null. The GIL guards the register.
  static std::shared_ptr<Handlers> of(const CommandBuffer* buffer) {
    const auto found = registered().find(buffer);
    return found == registered().end() ? nullptr : found->second.lock();
  }
  static std::shared_ptr<Handlers> make(const BufferPointer& buffer) {
    std::shared_ptr<Handlers> made(new Handlers(buffer), [](Handlers* handlers) {
      if (interpreter_has_ended()) return;
      const WithGil gil;
      delete handlers;
    });
    registered()[buffer.get()] = made;
    return made;
  }
  ~Handlers() {
    // The address may already be that of another buffer.
    const auto found = registered().find(key_);
    if (found != registered().end() && found->second.expired()) registered().erase(found);
  }

  void add(py::object handler) { handlers_.push_back(std::move(handler)); }
  void clear() { std::exchange(handlers_, {}).clear(); }
  /// From now on they are not their buffer's Python object's own.
  void hide() { are_shown_ = false; }
  bool are_shown() const { return are_shown_; }
  int traverse(visitproc visit, void* arg) const {
    for (const py::object& handler : handlers_) Py_VISIT(handler.ptr());
    for (const auto& later : behind_) {
      const auto handlers = later.lock();
      if (handlers == nullptr) continue;
      for (const py::object& handler : handlers->handlers_) Py_VISIT(handler.ptr());
    }
    return 0;
  }
  /// Those of another buffer, which waits for this one.
  void keep_behind(const std::shared_ptr<Handlers>& later) {
    std::erase_if(behind_, [](const auto& handlers) { return handlers.expired(); });
    behind_.push_back(later);
  }
  /// An exception of a handler is reported, and the others still run.
  void call() {
    const auto handlers = std::exchange(handlers_, {});
    const py::object argument = py::cast(buffer_.lock());
    for (const py::object& handler : handlers) {
      const auto result = py::reinterpret_steal<py::object>(invoke(handler, argument));
      if (!result)
        py::error_already_set().discard_as_unraisable("a completed handler of a CommandBuffer");
    }
  }

 private:
  static PyObject* invoke(const py::object& handler, const py::object& argument) {
    try {
      return PyObject_CallOneArg(handler.ptr(), argument.ptr());
    } catch (...) {
      sleep_if_thread_ends();
      throw;
    }
  }

  explicit Handlers(const BufferPointer& buffer) : key_(buffer.get()), buffer_(buffer) {}

  static std::map<const CommandBuffer*, std::weak_ptr<Handlers>>& registered() {
    static auto& all = *new std::map<const CommandBuffer*, std::weak_ptr<Handlers>>;
    return all;
  }

  const CommandBuffer* const key_;
  const std::weak_ptr<CommandBuffer> buffer_;  // it would otherwise own itself
  std::vector<py::object> handlers_;
  std::vector<std::weak_ptr<Handlers>> behind_;
  bool are_shown_ = true;
};

/// The handlers of an open buffer, of which there may be none yet.
std::shared_ptr<Handlers> open_handlers(const BufferPointer& buffer) {
  auto handlers = Handlers::of(buffer.get());
  if (handlers != nullptr) {
    buffer->check_encodable();  // the same moment ends both
    return handlers;
  }
  handlers = Handlers::make(buffer);
  const auto call = [handlers] {
    if (interpreter_has_ended()) return;
    const WithGil gil;
    handlers->call();
  };
  ask(*buffer, [&] { buffer->on_completed(call); });
  return handlers;
}

void add_completed_handler(const BufferPointer& buffer, py::handle handler) {
  if (PyCallable_Check(handler.ptr()) == 0)
    throw TypeError(refusal("handler", "be callable", describe(handler)));
  open_handlers(buffer)->add(py::reinterpret_borrow<py::object>(handler));
}

/// The handlers of a Python object whose buffer is still open; null where there are none.
std::shared_ptr<Handlers> open_handlers(PyObject* self) {
  const auto* buffer = contents<CommandBuffer>(self);  // the collector may come before them
  const bool open = buffer != nullptr && buffer->status() < CommandBufferStatus::committed;
  auto handlers = open ? Handlers::of(buffer) : nullptr;
  return handlers != nullptr && handlers->are_shown() ? handlers : nullptr;
}

/// From now on other threads change what the collector saw, without the GIL. Returns the handlers.
std::shared_ptr<Handlers> hide_from_collector(PyObject* self) {
  detach_calls(self);
  auto handlers = Handlers::of(contents<CommandBuffer>(self));
  if (handlers != nullptr) handlers->hide();
  return handlers;
}

/// Shows the handlers of a committed buffer through the open one that it waits for.
void show_behind_gate(const CommandBuffer& buffer, const std::shared_ptr<Handlers>& handlers) {
  const auto gate = buffer.gate();
  if (gate == nullptr || buffer.status() != CommandBufferStatus::committed) return;
  try {
    const auto first = open_handlers(gate);
    if (first->are_shown()) first->keep_behind(handlers);
  } catch (const StateError&) {  // another thread has committed it
  }
}

/// The work of a commit is over before the GIL could be given up: nothing else waits for the
/// buffer, which has no place in its queue yet.
bool is_short(const CommandBuffer& buffer) {
  return buffer.device() == cpu_device() && buffer.elements() < kLongCall &&
         buffer.status() == CommandBufferStatus::not_enqueued;
}

void commit(PyObject* self, CommandBuffer& buffer) {
  const auto handlers = hide_from_collector(self);
  if (handlers == nullptr && is_short(buffer)) return buffer.commit();
  {
    const WithoutGil released;  // the work may run here, and handlers take the GIL
    buffer.commit();
  }
  if (handlers != nullptr) show_behind_gate(buffer, handlers);
}

/// The collector has found an open buffer that nobody can reach. What waits for it runs, and
/// handlers of that are called, before anything of them is cleared.
void finalize(PyObject* self) {
  const py::error_scope errors;
  auto* const buffer = contents<CommandBuffer>(self);
  if (buffer == nullptr || buffer->status() >= CommandBufferStatus::committed) return;
  hide_from_collector(self);
  buffer->discard();
}

void collect_handlers(PyHeapTypeObject* heap) {
  heap->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
  heap->ht_type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (const int stopped = traverse_calls(self, visit, arg); stopped != 0) return stopped;
    const auto handlers = open_handlers(self);
    return handlers == nullptr ? 0 : handlers->traverse(visit, arg);
  };
  heap->ht_type.tp_finalize = finalize;
  heap->ht_type.tp_dealloc = [](PyObject* self) {
    detach_calls(self);
    py::detail::pybind11_object_dealloc(self);
  };
  heap->ht_type.tp_clear = [](PyObject* self) {
    if (const auto handlers = open_handlers(self)) handlers->clear();
    return 0;
  };
}

void leave(py::handle self, const BufferPointer& buffer, py::object type) {
  if (!type.is_none()) {
    hide_from_collector(self.ptr());
    const WithoutGil released;  // dropping images takes it where it has to
    return buffer->discard();
  }
  if (buffer->status() < CommandBufferStatus::committed) commit(self.ptr(), *buffer);
  wait(*buffer, py::none());
}

/// Committed work and its handlers need the interpreter, so its end waits for them.
void wait_at_exit() {
  constexpr double kLongest = 10, kSlice = 0.1;  // seconds
  const LastWork last;
  int left = 0;
  for (double waited = 0; waited < kLongest; waited += kSlice) {
    {
      const WithoutGil released;
      left = last.left_after(kSlice);
    }
    if (left == 0 || PyErr_CheckSignals() != 0) break;
  }
  end_interpreter();
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (left == 0) return;
  const std::string words =
      "the process ends without the rest of its committed work: after 10 seconds " +
      std::to_string(left) + " command buffers (handlers included) had not ended";
  if (PyErr_WarnEx(PyExc_RuntimeWarning, words.c_str(), 1) != 0) throw py::error_already_set();
}

void call_commit(py::handle self) { commit(self.ptr(), *contents<CommandBuffer>(self.ptr())); }
void call_wait(py::handle self, py::handle timeout) {
  wait(*contents<CommandBuffer>(self.ptr()), timeout);
}

void define_state(py::class_<CommandBuffer, BufferPointer>& type) {
  type.def_property_readonly(
      "status", [](const CommandBuffer& b) { return member(b.status()); }, "CommandBufferStatus.");
  type.def_property_readonly(
      "label", [](const CommandBuffer& b) { return to_optional(b.label()); },
      "Label given at creation, or None.");
  type.def_property_readonly("device", &CommandBuffer::device, "The Device of the buffer.");
  type.def_property_readonly(
      "error",
      [](const CommandBuffer& b) { return python_exception(ask(b, [&] { return b.error(); })); },
      "The DeviceError of a failed buffer, else None.");
  type.def_property_readonly(
      "gpu_start_time", [](const CommandBuffer& b) { return b.times().first; },
      "Begin of the work in seconds of a monotonic clock; 0.0 until finished.");
  type.def_property_readonly(
      "gpu_end_time", [](const CommandBuffer& b) { return b.times().second; },
      "End of the work, likewise.");
  type.def(
      "__repr__",
      [](const CommandBuffer& b) {
        return "<CommandBuffer" + (b.label().empty() ? "" : " '" + b.label() + "'") + " " +
               py::cast<std::string>(member(b.status()).attr("name")) + " on '" +
               b.device()->name() + "'>";
      },
      kReprSignature);
}

}  // namespace

void register_command_buffers(py::module_& m) {
  py::class_<CommandBuffer, BufferPointer> type(
      m, "CommandBuffer", py::custom_type_setup([](PyHeapTypeObject* heap) {
        refuse_new_instances(heap);
        collect_handlers(heap);
      }),
      "CommandBuffer()\n--\n\n"
      "Calls to run together. As a context manager, leaving the block commits and waits; an "
      "exception\n"
      "inside it discards the buffer.\n\n"
      "A buffer fails (DeviceError) unless every buffer that was to write one of its inputs when "
      "it "
      "was encoded has completed\n"
      "by the end of its turn: commit the writers first, to the same queue. Queues are not ordered "
      "among each other: encoding\n"
      "work on an image that an unfinished buffer of another queue writes, or a write to one that "
      "it "
      "reads, is a RuntimeError.");
  define_state(type);
  add_method<[](CommandBuffer& buffer) {
    const WithoutGil released;
    buffer.enqueue();
  }>(type,
     R"(enqueue($self)
--

Reserves the buffer's place in the queue's order. RuntimeError once committed.)");
  add_method<call_commit>(type,
                          R"(commit($self)
--

Hands the buffer to the device. Small work of the CPU engine is done on return, large work goes on meanwhile.
RuntimeError the second time.)");
  add_method<call_wait>(type,
                        R"(wait_until_completed($self, timeout=None)
--

Waits until the work is done and all handlers have returned.

Raises DeviceError where the work failed, TimeoutError after `timeout` seconds, RuntimeError where the buffer was
never committed or inside its own handler.)");
  add_method<add_completed_handler>(type,
                                    R"(add_completed_handler($self, handler)
--

Calls handler(buffer) once after the work, before wait_until_completed returns. RuntimeError once committed.
It may run on another thread than the one that commits. An exception in it goes to sys.unraisablehook.)");
  type.def("__enter__", [](py::object self) { return self; }, "__enter__(self)\n--\n\n");
  type.def(
      "__exit__",
      [](py::handle self, py::object exception, py::object, py::object) {
        leave(self, py::cast<BufferPointer>(self), exception);
      },
      "__exit__(self, exc_type, exc_value, traceback, /)\n--\n\n");
  py::module_::import("atexit").attr("register")(py::cpp_function(&wait_at_exit));
}

}  // namespace mpsnn_loss::bindings
