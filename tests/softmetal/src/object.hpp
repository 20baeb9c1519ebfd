// Helpers for objects of the double.
#pragma once
#import <softmetal/annotations.h>

namespace softmetal {

/// Takes a singleton out of the count of live objects: it is meant to stay.
void make_immortal(SoftmetalObject* object);

/// Releases an object that is being initialised, unless it gets finished: for initialisers that
/// return nil or raise on the way.
class Unfinished {
 public:
  explicit Unfinished(id object) : object_(object) {}
  ~Unfinished() { [object_ release]; }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
  void finished() { object_ = nil; }

 private:
  id object_;
};

/// A mutex around the life of weakly remembered objects: while it is held none of them can go.
class LifeLock {
 public:
  LifeLock();
  ~LifeLock();
  LifeLock(const LifeLock&) = delete;
  LifeLock& operator=(const LifeLock&) = delete;
};

}  // namespace softmetal
