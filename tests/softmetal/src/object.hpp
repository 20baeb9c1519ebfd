// Helpers for objects of the double.
#pragma once
#import <softmetal/annotations.h>

namespace softmetal {

/// Takes a singleton out of the count of live objects: it is meant to stay.
void make_immortal(SoftmetalObject* object);

/// A mutex around the life of weakly remembered objects: while it is held none of them can go.
class LifeLock {
 public:
  LifeLock();
  ~LifeLock();
  LifeLock(const LifeLock&) = delete;
  LifeLock& operator=(const LifeLock&) = delete;
};

}  // namespace softmetal
