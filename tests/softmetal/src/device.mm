#import "metal_objects.hpp"

#include "counters.hpp"
#include "faults.hpp"
#include "judge.hpp"
#include "settings.hpp"

#import <CoreGraphics/CoreGraphics.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

namespace softmetal {
namespace {

constexpr unsigned most_devices = 8;
SoftmetalDevice* living[most_devices];  // not retained: a device goes with its last user

unsigned devices_present() {
  return strikes(Fault::no_device) ? 0 : std::min(device_count(), most_devices);
}

}  // namespace

SoftmetalDevice* device_at(unsigned index) {
  LifeLock lock;
  if (living[index]) return [living[index] retain];
  SoftmetalDevice* device = [[SoftmetalDevice alloc] init];
  device->_index = index;
  device->_managed = storage_is_managed();
  living[index] = device;
  return device;
}

bool same_device(id<MTLDevice> device, id<MTLDevice> other, const char* what) {
  if (device.registryID == other.registryID) return true;
  broken(rules::mixed_devices, "%s: made for \"%s\", used with \"%s\"", what,
         device.name.UTF8String, other.name.UTF8String);
  return false;
}

}  // namespace softmetal

using namespace softmetal;

@implementation SoftmetalDevice

// Locked, so that device_at never hands out one that is on its way out.
- (oneway void)release {
  LifeLock lock;
  [super release];
}

- (void)dealloc {
  living[_index] = nil;
  [super dealloc];
}

- (NSString*)name {
  NSString* kind = _managed ? @"Softmetal managed" : @"Softmetal shared";
  return _index == 0 ? kind : [NSString stringWithFormat:@"%@ %u", kind, _index + 1];
}

- (uint64_t)registryID {
  return 0x50f7000000000000 + _index;
}

- (BOOL)isLowPower {
  return _managed && _index > 0;
}

- (BOOL)isHeadless {
  return NO;
}

- (BOOL)isRemovable {
  return NO;
}

- (BOOL)hasUnifiedMemory {
  return !_managed;
}

- (uint64_t)recommendedMaxWorkingSetSize {
  return working_set();
}

- (NSUInteger)maxBufferLength {
  return NSUInteger{1} << 30;
}

- (NSUInteger)currentAllocatedSize {
  return 0;
}

- (BOOL)supportsFamily:(MTLGPUFamily)family {
  const BOOL common = family >= MTLGPUFamilyCommon1 && family <= MTLGPUFamilyCommon3;
  const BOOL mac = family == MTLGPUFamilyMac1 || family == MTLGPUFamilyMac2;
  const BOOL apple = family >= MTLGPUFamilyApple1 && family <= MTLGPUFamilyApple7;
  return common || mac || (!_managed && (apple || family == MTLGPUFamilyMetal3));
}

- (id<MTLCommandQueue>)newCommandQueue {
  return [self newCommandQueueWithMaxCommandBufferCount:64];
}

- (id<MTLCommandQueue>)newCommandQueueWithMaxCommandBufferCount:(NSUInteger)count {
  if (strikes(Fault::queue_is_nil)) return nil;
  return [[SoftmetalQueue alloc] initWithDevice:self limit:count];
}

- (id<MTLTexture>)newTextureWithDescriptor:(MTLTextureDescriptor*)descriptor {
  if (!descriptor) {
    broken(rules::nil_argument, "newTextureWithDescriptor: descriptor");
    return nil;
  }
  SoftmetalTexture* texture = [[SoftmetalTexture alloc] initWithDevice:self descriptor:descriptor];
  if (texture) [texture texels]->wrapped = true;
  return texture;
}

@end

const CGRect CGRectNull{1.0 / 0.0, 1.0 / 0.0, 0, 0};

id<MTLDevice> MTLCreateSystemDefaultDevice() {
  ++counters().probes;
  if (strikes(Fault::probe_raises)) {
    [NSException raise:NSGenericException format:@"probe_raises: fault of the double"];
  }
  if (strikes(Fault::default_device_is_nil)) return nil;
  return devices_present() ? device_at(0) : nil;
}

NSArray<id<MTLDevice>>* MTLCopyAllDevices() {
  ++counters().probes;
  NSMutableArray* devices = [[NSMutableArray alloc] init];
  if (strikes(Fault::device_list_is_empty)) return devices;
  for (unsigned i = 0, count = devices_present(); i < count; ++i) {
    SoftmetalDevice* device = device_at(i);
    [devices addObject:device];
    [device release];
  }
  return devices;
}

BOOL MPSSupportsMTLDevice(id<MTLDevice> device) {
  return device && !strikes(Fault::device_unsupported);
}

id<MTLDevice> MPSGetPreferredDevice(MPSDeviceOptions options) {
  const unsigned present = devices_present();
  if (present == 0) return nil;
  return [device_at(options & MPSDeviceOptionsLowPower ? present - 1 : 0) autorelease];
}

void MPSSetHeapCacheDuration(id<MTLCommandBuffer> buffer, double seconds) {
  (void)buffer, (void)seconds;
}

void MPSHintTemporaryMemoryHighWaterMark(id<MTLCommandBuffer> buffer, NSUInteger bytes) {
  (void)buffer, (void)bytes;
}
