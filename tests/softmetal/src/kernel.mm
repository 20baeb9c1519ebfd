#include "kernel.hpp"

#include "faults.hpp"
#include "judge.hpp"

#include <cstring>

const MTLRegion MPSRectNoClip = {{0, 0, 0}, {NSUIntegerMax, NSUIntegerMax, NSUIntegerMax}};

namespace softmetal {
namespace {

bool has_other(const std::vector<std::thread::id>& threads) {
  const auto self = std::this_thread::get_id();
  return std::any_of(threads.begin(), threads.end(), [&](auto id) { return id != self; });
}

}  // namespace

KernelWindow::KernelWindow(const MPSKernel* kernel, Purpose purpose, const char* doing)
    : use_(*kernel->_use), list_(purpose == read ? use_.reading : use_.changing) {
  std::unique_lock lock(use_.mutex);
  const bool clash = has_other(use_.changing) || (purpose == change && has_other(use_.reading));
  list_.push_back(std::this_thread::get_id());
  lock.unlock();
  if (clash) {
    broken(rules::kernel_changed_during_encode, "%s of a %s while another thread %s it", doing,
           object_getClassName(kernel), purpose == change ? "uses" : "changes");
  }
}

KernelWindow::~KernelWindow() {
  std::lock_guard lock(use_.mutex);
  list_.erase(std::find(list_.begin(), list_.end(), std::this_thread::get_id()));
}

void set_object(const MPSKernel* kernel, id* field, id value, const char* name) {
  if (!value) return broken(rules::nil_argument, "%s", name);
  KernelWindow window(kernel, KernelWindow::change, "setting a property");
  [value retain];
  [*field release];
  *field = value;
}

bool is_no_clip(const MTLRegion& region) {
  return std::memcmp(&region, &MPSRectNoClip, sizeof region) == 0;
}

NSData* archived(const void* bytes, NSUInteger size) {
  return [NSData dataWithBytes:bytes length:size];
}

bool unarchive(NSCoder* coder, NSString* key, void* bytes, NSUInteger size) {
  NSData* data = [coder decodeObjectForKey:key];
  if (![data isKindOfClass:[NSData class]] || data.length != size) return false;
  std::memcpy(bytes, data.bytes, size);
  return true;
}

}  // namespace softmetal

using namespace softmetal;

@implementation MPSKernel

- (instancetype)initWithDevice:(id<MTLDevice>)device {
  Unfinished guard(self);
  if (!device) broken(rules::nil_argument, "initWithDevice:");
  if (!device || !MPSSupportsMTLDevice(device) || strikes(Fault::kernel_is_nil)) return nil;
  guard.finished();
  if (!(self = [super init])) return nil;
  _use = new SoftmetalKernelUse;
  _device = [device retain];
  [self softmetalSetDefaults];
  return self;
}

- (void)dealloc {
  delete _use;
  [_device release];
  [_label release];
  [super dealloc];
}

- (void)softmetalSetDefaults {
}

- (void)softmetalForget {
}

- (void)softmetalTakeFrom:(MPSKernel*)other {
  _options = other->_options;
  [self setLabel:other->_label];
}

- (id<MTLDevice>)device {
  return _device;
}

- (MPSKernelOptions)options {
  return get(self, _options);
}

- (void)setOptions:(MPSKernelOptions)options {
  set(self, _options, options);
}

@synthesize label = _label;

- (instancetype)copyWithZone:(NSZone*)zone {
  return [self copyWithZone:zone device:nil];
}

- (instancetype)copyWithZone:(NSZone*)zone device:(id<MTLDevice>)device {
  if (strikes(Fault::copy_is_nil)) return nil;
  id<MTLDevice> target = device ? device : _device;
  MPSKernel* copy = [(MPSKernel*)[[self class] allocWithZone:zone] initWithDevice:target];
  KernelWindow window(self, KernelWindow::read, "copying");
  [copy softmetalTakeFrom:self];
  if (strikes(Fault::copy_forgets_properties)) [copy softmetalForget];
  return copy;
}

+ (BOOL)supportsSecureCoding {
  return YES;
}

- (void)encodeWithCoder:(NSCoder*)coder {
  KernelWindow window(self, KernelWindow::read, "archiving");
  [coder encodeInt64:static_cast<int64_t>(_options) forKey:@"MPSKernel.options"];
  if (_label) [coder encodeObject:_label forKey:@"MPSKernel.label"];
}

- (instancetype)initWithCoder:(NSCoder*)coder {
  id<MTLDevice> device = nil;
  if ([coder conformsToProtocol:@protocol(MPSDeviceProvider)]) {
    device = [[(id<MPSDeviceProvider>)coder mpsMTLDevice] retain];
  } else {
    device = MTLCreateSystemDefaultDevice();
  }
  self = [self initWithCoder:coder device:device];
  [device release];
  if (strikes(Fault::archive_forgets_properties)) [self softmetalForget];
  return self;
}

- (instancetype)initWithCoder:(NSCoder*)coder device:(id<MTLDevice>)device {
  if (!(self = [self initWithDevice:device])) return nil;
  _options = static_cast<MPSKernelOptions>([coder decodeInt64ForKey:@"MPSKernel.options"]);
  [self setLabel:[coder decodeObjectForKey:@"MPSKernel.label"]];
  return self;
}

@end
