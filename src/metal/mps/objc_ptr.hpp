// Ownership of Objective-C objects under manual retain/release. For .mm files only, after they have
// imported Foundation: Apple's headers stay in .mm files.
#pragma once

#include <string>
#include <utility>

#include "core/error.hpp"
#include "metal/mps/process.hpp"

namespace mpsnn_loss::metal {

/// Gives up a reference, where messages may be sent at all.
inline void release(id object) {
  if (is_usable()) [object release];
}

/// Holds one reference. How it got it is said where it is made: adopted for a +1 result
/// (alloc/init, new..., copy), retained for every other.
template <class T>
class objc_ptr {
 public:
  objc_ptr() = default;
  static objc_ptr adopted(T object) { return objc_ptr(object); }
  static objc_ptr retained(T object) { return objc_ptr([object retain]); }
  objc_ptr(const objc_ptr& other) : object_([other.object_ retain]) {}
  objc_ptr(objc_ptr&& other) noexcept : object_(std::exchange(other.object_, nil)) {}
  objc_ptr& operator=(objc_ptr other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~objc_ptr() { release(object_); }

  T get() const { return object_; }
  explicit operator bool() const { return object_ != nil; }

 private:
  explicit objc_ptr(T object) : object_(object) {}

  T object_ = nil;
};

/// Throws StateError "<what> could not be made" for nil, which many of the nonnull initializers
/// return.
template <class T>
T not_nil(T object, const char* what) {
  if (object != nil) return object;
  throw StateError(std::string(what) + " could not be made: Metal returned nil");
}

/// An autorelease pool that is drained also when a C++ exception leaves its scope, which
/// @autoreleasepool is not. Every entry from outside opens one: a thread of Python has none. Inside
/// of `guarded` use @autoreleasepool: an NSException lies in the innermost pool, which must not be
/// drained before somebody has caught it.
class autorelease_pool {
 public:
  autorelease_pool() : pool_(is_usable() ? [[NSAutoreleasePool alloc] init] : nil) {}
  ~autorelease_pool() { [pool_ drain]; }
  autorelease_pool(const autorelease_pool&) = delete;
  autorelease_pool& operator=(const autorelease_pool&) = delete;

 private:
  NSAutoreleasePool* const pool_;
};

}  // namespace mpsnn_loss::metal
