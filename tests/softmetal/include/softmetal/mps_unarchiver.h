// Archives of kernels. On Linux the double also mends the two class methods of GNUstep 1.28 that
// write an empty archive or do not exist.
#pragma once
#include <softmetal/mps_kernel.h>

NS_ASSUME_NONNULL_BEGIN
SOFTMETAL_EXPORT
@interface MPSKeyedUnarchiver : NSKeyedUnarchiver <MPSDeviceProvider> {
 @private
  id<MTLDevice> _softmetalDevice;
}
+ (nullable id)unarchivedObjectOfClass:(Class)cls
                              fromData:(NSData*)data
                                device:(id<MTLDevice>)device
                                 error:(NSError* _Nullable* _Nullable)error;
+ (nullable id)unarchivedObjectOfClasses:(NSSet<Class>*)classes
                                fromData:(NSData*)data
                                  device:(id<MTLDevice>)device
                                   error:(NSError* _Nullable* _Nullable)error;
- (instancetype)initForReadingFromData:(NSData*)data
                                device:(id<MTLDevice>)device
                                 error:(NSError* _Nullable* _Nullable)error;
- (id<MTLDevice>)mpsMTLDevice;
+ (nullable id)unarchivedObjectOfClass:(Class)cls
                              fromData:(NSData*)data
                                 error:(NSError* _Nullable* _Nullable)error SOFTMETAL_UNAVAILABLE;
- (instancetype)init SOFTMETAL_UNAVAILABLE;
@end

@interface NSKeyedUnarchiver (Softmetal)
+ (nullable id)unarchivedObjectOfClass:(Class)cls
                              fromData:(NSData*)data
                                 error:(NSError* _Nullable* _Nullable)error;
@end
NS_ASSUME_NONNULL_END
