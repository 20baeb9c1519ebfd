// Archives: MPSKeyedUnarchiver, and the class methods that GNUstep 1.28 lacks or has wrong.
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <cstdint>
#include <cstring>

#include "faults.hpp"
#include "judge.hpp"
#include "object.hpp"

using namespace softmetal;

namespace {

NSString* const root_key = @"root";  // as Apple's archives name their root object

NSError* coding_error(NSString* words) {
  return [NSError errorWithDomain:NSCocoaErrorDomain
                             code:4864  // NSCoderReadCorruptError
                         userInfo:[NSDictionary dictionaryWithObject:words
                                                              forKey:NSLocalizedDescriptionKey]];
}

/// GNUstep reads beyond the end of a property list that was cut: the table of offsets must end
/// where the trailer of 32 bytes begins.
void require_whole(NSData* data) {
  const auto* bytes = static_cast<const unsigned char*>(data.bytes);
  const NSUInteger length = data.length, trailer = 32;
  const auto number = [&](NSUInteger at) {
    std::uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | bytes[at + i];
    return value;
  };
  const bool is_binary = length >= 8 + trailer && std::memcmp(bytes, "bplist00", 8) == 0;
  if (is_binary) {
    const std::uint64_t objects = number(length - 24), table = number(length - 8);
    const unsigned char size = bytes[length - 26];
    if (objects < length && table < length && table + objects * size + trailer == length) return;
  }
  [NSException raise:NSInvalidArgumentException format:@"the archive is no whole property list"];
}

/// GNUstep leaks an unarchiver whose initialiser raises, as it does for truncated data.
id reading(NSKeyedUnarchiver* allocated, NSData* data) {
  Unfinished guard(allocated);
  require_whole(data);
  id ready = [allocated initForReadingWithData:data];
  guard.finished();
  return ready;
}

id decoded(NSKeyedUnarchiver* unarchiver, NSSet* classes, NSError** error) {
  id object = [[[unarchiver decodeObjectForKey:root_key] retain] autorelease];
  [unarchiver finishDecoding];
  for (Class one in classes) {
    if ([object isKindOfClass:one]) return object;
  }
  if (error) *error = coding_error(@"the archive holds no object of that class");
  return nil;
}

}  // namespace

@implementation MPSKeyedUnarchiver

+ (id)unarchivedObjectOfClass:(Class)cls
                     fromData:(NSData*)data
                       device:(id<MTLDevice>)device
                        error:(NSError**)error {
  return [self unarchivedObjectOfClasses:[NSSet setWithObject:cls]
                                fromData:data
                                  device:device
                                   error:error];
}

+ (id)unarchivedObjectOfClasses:(NSSet<Class>*)classes
                       fromData:(NSData*)data
                         device:(id<MTLDevice>)device
                          error:(NSError**)error {
  if (strikes(Fault::unarchive_is_nil)) return nil;
  if (strikes(Fault::unarchive_raises)) {
    [NSException raise:NSInvalidUnarchiveOperationException format:@"fault of the double"];
  }
  if (!classes || !data || !device) {
    broken(rules::nil_argument, "unarchivedObjectOfClass:");
    return nil;
  }
  return decoded([[[self alloc] initForReadingFromData:data device:device error:error] autorelease],
                 classes, error);
}

- (instancetype)initForReadingFromData:(NSData*)data
                                device:(id<MTLDevice>)device
                                 error:(NSError**)error {
  (void)error;
  Unfinished guard(self);
  require_whole(data);
  self = [super initForReadingWithData:data];
  guard.finished();
  _softmetalDevice = [device retain];
  return self;
}

- (void)dealloc {
  [_softmetalDevice release];
  [super dealloc];
}

- (id<MTLDevice>)mpsMTLDevice {
  return _softmetalDevice;
}

@end

@implementation NSKeyedUnarchiver (Softmetal)

+ (id)unarchivedObjectOfClass:(Class)cls fromData:(NSData*)data error:(NSError**)error {
  return decoded([reading([NSKeyedUnarchiver alloc], data) autorelease], [NSSet setWithObject:cls],
                 error);
}

@end

// GNUstep's own writes nothing and reports no error.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wobjc-protocol-method-implementation"
@implementation NSKeyedArchiver (Softmetal)

+ (NSData*)archivedDataWithRootObject:(id)object
                requiringSecureCoding:(BOOL)secure
                                error:(NSError**)error {
  if (strikes(Fault::archive_is_nil)) {
    if (error) *error = coding_error(@"fault of the double");
    return nil;
  }
  if (secure && ![object conformsToProtocol:@protocol(NSSecureCoding)]) {
    if (error) *error = coding_error(@"the object is not secure-codable");
    return nil;
  }
  NSMutableData* data = [NSMutableData data];
  NSKeyedArchiver* archiver = [[NSKeyedArchiver alloc] initForWritingWithMutableData:data];
  [archiver encodeObject:object forKey:root_key];
  [archiver finishEncoding];
  [archiver release];
  return data;
}

@end
#pragma clang diagnostic pop
