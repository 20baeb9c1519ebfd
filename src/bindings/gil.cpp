#include "bindings/gil.hpp"

#include <atomic>
#include <chrono>
#include <thread>

namespace mpsnn_loss::bindings {
namespace {

std::atomic<bool> ended{false};

[[noreturn]] void sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

template <class Take>
auto take_or_sleep(Take take) noexcept {
  try {
    return take();
  } catch (...) {  // pthread_exit: leaving this handler would abort the process
    sleep_for_ever();
  }
}

}  // namespace

bool interpreter_has_ended() { return ended || Py_IsInitialized() == 0; }
void end_interpreter() { ended = true; }

WithoutGil::~WithoutGil() {
  take_or_sleep([this] { PyEval_RestoreThread(state_); });
}

void sleep_if_thread_ends() {
  if (PyGILState_Check() == 0) sleep_for_ever();
}

WithGil::WithGil() : state_(take_or_sleep([] { return PyGILState_Ensure(); })) {}

void let_interrupts_through() {
  const WithGil gil;
  if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
}

}  // namespace mpsnn_loss::bindings
