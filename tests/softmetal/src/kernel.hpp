// What the kernels of the double share.
#pragma once
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <vector>

#import "object.hpp"

struct SoftmetalKernelUse {
  std::mutex mutex;
  std::vector<std::thread::id> reading, changing;  // one entry for every window that is open
};

namespace softmetal {

/// The time in which a thread reads or changes a kernel. Any number of threads may read at once (so
/// may encode into different buffers); a change is alone.
class KernelWindow {
 public:
  enum Purpose { read, change };
  KernelWindow(const MPSKernel* kernel, Purpose purpose, const char* doing);
  ~KernelWindow();
  KernelWindow(const KernelWindow&) = delete;
  KernelWindow& operator=(const KernelWindow&) = delete;

 private:
  SoftmetalKernelUse& use_;
  std::vector<std::thread::id>& list_;
};

template <class T>
T get(const MPSKernel* kernel, const T& field) {
  KernelWindow window(kernel, KernelWindow::read, "reading a property");
  return field;
}

template <class T>
void set(const MPSKernel* kernel, T& field, const T& value) {
  KernelWindow window(kernel, KernelWindow::change, "setting a property");
  field = value;
}

/// For retained, nonnull properties.
void set_object(const MPSKernel* kernel, id* field, id value, const char* name);

inline bool is_zero(MPSOffset offset) { return offset.x == 0 && offset.y == 0 && offset.z == 0; }
bool is_no_clip(const MTLRegion& region);

/// Where the padding policy of the double leaves offsets. Apple's may leave any; whoever does not
/// restore them notices.
inline constexpr MPSOffset disturbed_offset{2, 1, 0};

/// Steps 2 and 3 of sizing a result: states, then a custom padding object, may edit `suggestion`.
MPSImageDescriptor* sized_result(MPSKernel* kernel, id<MPSNNPadding> padding,
                                 NSArray<MPSImage*>* sources, NSArray<MPSState*>* states,
                                 MPSImageDescriptor* suggestion);
/// Step 4: the images, from the allocator of the kernel.
MPSImageBatch* allocate_results(MPSKernel* kernel, id<MPSImageAllocator> allocator,
                                id<MTLCommandBuffer> buffer, MPSImageDescriptor* descriptor,
                                NSUInteger count);
/// A descriptor of the double's choice for a result as large as `like`, or 1x1x1.
MPSImageDescriptor* suggestion_for(MPSImage* like, bool single_value);
/// AlignCentered, AddRemainderToTopLeft, SizeSame.
id<MPSNNPadding> default_padding();

NSData* archived(const void* bytes, NSUInteger size);
/// False where the archive holds something else under this key.
bool unarchive(NSCoder* coder, NSString* key, void* bytes, NSUInteger size);

}  // namespace softmetal

@interface MPSKernel (Inside)
/// Sets what a subclass has to its defaults.
- (void)softmetalSetDefaults;
/// Takes over every property of another kernel of the same class.
- (void)softmetalTakeFrom:(MPSKernel*)other;
/// Loses the dynamic properties, under the faults copy_ and archive_forgets_properties.
- (void)softmetalForget;
@end

@interface MPSCNNKernel (Inside)
/// What the inherited encodes do; the base class only judges.
- (void)softmetalEncode:(MPSImageBatch*)sources
                     to:(MPSImageBatch*)destinations
                 buffer:(id<MTLCommandBuffer>)buffer;
- (MPSImageDescriptor*)softmetalResultFor:(MPSImage*)source;
/// Judges the geometry that these kernels do not support; false where results are undefined.
- (BOOL)softmetalHasDefaultGeometry;
@end

@interface MPSCNNBinaryKernel (Inside)
- (MPSImageDescriptor*)softmetalResultFor:(NSArray<MPSImage*>*)sources;
- (BOOL)softmetalHasDefaultGeometry;
@end
