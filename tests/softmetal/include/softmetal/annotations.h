// Words of Apple's headers that GNUstep 1.28 does not have. Availability is not checked here: on
// Linux @available is always true, the type check against a real SDK sees to it.
#pragma once
#import <Foundation/Foundation.h>
#include <objc/blocks_runtime.h>

#ifndef API_AVAILABLE
#define API_AVAILABLE(...)
#define API_UNAVAILABLE(...)
#define API_DEPRECATED(...)
#endif
#ifndef NS_SWIFT_NAME
#define NS_SWIFT_NAME(name)
#endif
#ifndef NS_NOESCAPE
#define NS_NOESCAPE __attribute__((noescape))
#endif

// As in Apple's <objc/objc.h>, where nil fits every kind of pointer.
#undef nil
#define nil nullptr

// GNUstep's NS_UNAVAILABLE is empty; ours stops the compiler, as Apple's does.
#define SOFTMETAL_UNAVAILABLE __attribute__((unavailable))
#define SOFTMETAL_EXPORT __attribute__((visibility("default")))
#ifdef __cplusplus
#define MTL_EXTERN extern "C" SOFTMETAL_EXPORT
#else
#define MTL_EXTERN extern SOFTMETAL_EXPORT
#endif

typedef double CFTimeInterval;
typedef NSString* NSErrorUserInfoKey;

/// The root of every class of the double: counts live objects, has a reference count that the
/// thread sanitizer can see, and turns what was released into a corpse that accuses its user.
SOFTMETAL_EXPORT
@interface SoftmetalObject : NSObject {
 @private
  long _softmetalReferences;
}
@end
