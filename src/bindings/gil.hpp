// Giving up and taking the interpreter's lock. A thread that asks for it while the interpreter ends
// is ended by Python through pthread_exit, whose unwinding aborts the process at the first function
// that does not throw; such a thread sleeps instead, as it does from Python 3.14 on.
#pragma once

#include <pybind11/pybind11.h>

namespace mpsnn_loss::bindings {

class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil();
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* const state_;
};

/// For threads that may or may not hold the lock already. Not after the interpreter has ended.
class WithGil {
 public:
  WithGil();
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  const PyGILState_STATE state_;
};

/// Called without the lock: throws what an interrupt from the keyboard has raised.
void let_interrupts_through();

/// For handlers of exceptions of any kind around calls of Python, which give the lock up and ask
/// for it: does not return where the exception is Python's way of ending the thread.
void sleep_if_thread_ends();

/// True once the interpreter ends: objects of Python must be left alone then.
bool interpreter_has_ended();
/// To be called by a handler of atexit, before other threads lose the interpreter.
void end_interpreter();

}  // namespace mpsnn_loss::bindings
