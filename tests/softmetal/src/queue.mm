// A command queue: its slots, its order, and the thread that stands for the GPU.
#include <chrono>
#include <deque>

#include "command_buffer.hpp"
#include "faults.hpp"
#include "judge.hpp"
#include "settings.hpp"

namespace softmetal {

struct Place {
  SoftmetalCommandBuffer* buffer;  // retained once committed
  bool committed;
};

struct QueueState {
  explicit QueueState(std::size_t limit_) : limit(limit_) {}
  const std::size_t limit;
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t taken = 0;    // slots of buffers that exist and have not finished
  std::size_t running = 0;  // committed, not finished
  std::deque<Place> order;
  bool stop = false;
  std::thread worker;  // started by the first commit
};

namespace {

thread_local const QueueState* handling = nullptr;

void work(const std::shared_ptr<QueueState>& queue) {
  GSRegisterCurrentThread();
  for (;;) {
    SoftmetalCommandBuffer* next = nil;
    {
      std::unique_lock lock(queue->mutex);
      queue->changed.wait(lock, [&] {
        return queue->stop || (!queue->order.empty() && queue->order.front().committed);
      });
      if (queue->stop) break;
      next = queue->order.front().buffer;
      queue->order.pop_front();
    }
    @autoreleasepool {
      run(next);
      [next release];
    }
  }
  GSUnregisterCurrentThread();
}

Place* place_of(QueueState& queue, SoftmetalCommandBuffer* buffer) {
  for (Place& place : queue.order) {
    if (place.buffer == buffer) return &place;
  }
  return nullptr;
}

/// Waits for a slot. False where none can come free, or the wait was too long with nothing running.
bool take_slot(QueueState& queue) {
  std::unique_lock lock(queue.mutex);
  const auto patience = std::chrono::duration<double>(block_seconds());
  const auto has_room = [&] { return queue.taken < queue.limit; };
  while (!has_room()) {
    const bool moved = queue.changed.wait_for(lock, patience, has_room);
    if (!moved && queue.running == 0) return false;
  }
  ++queue.taken;
  return true;
}

}  // namespace

void enqueue(QueueState& queue, SoftmetalCommandBuffer* buffer) {
  std::lock_guard lock(queue.mutex);
  if (!place_of(queue, buffer)) queue.order.push_back({buffer, false});
}

void commit(QueueState& queue, SoftmetalCommandBuffer* buffer) {
  std::lock_guard lock(queue.mutex);
  Place* place = place_of(queue, buffer);
  if (!place) {
    queue.order.push_back({buffer, false});
    place = &queue.order.back();
  }
  place->committed = true;
  [buffer retain];
  ++queue.running;
  if (!queue.worker.joinable()) {
    queue.worker = std::thread([state = *buffer->_queue->_state] { work(state); });
  }
  queue.changed.notify_all();
}

void drop(QueueState& queue, SoftmetalCommandBuffer* buffer) {
  std::lock_guard lock(queue.mutex);
  std::erase_if(queue.order, [&](const Place& place) { return place.buffer == buffer; });
  --queue.taken;
  queue.changed.notify_all();
}

void free_slot(QueueState& queue) {
  std::lock_guard lock(queue.mutex);
  --queue.taken;
  --queue.running;
  queue.changed.notify_all();
}

bool in_handler_of(const QueueState& queue) { return handling == &queue; }
void set_in_handler_of(const QueueState* queue) { handling = queue; }

}  // namespace softmetal

using namespace softmetal;

@implementation SoftmetalQueue
@synthesize label = _label;

- (instancetype)initWithDevice:(id<MTLDevice>)device limit:(NSUInteger)limit {
  if (!(self = [super init])) return nil;
  _device = [device retain];
  _state = new std::shared_ptr<QueueState>(std::make_shared<QueueState>(limit));
  return self;
}

// Buffers retain their queue, so none is left. The last release may come from the worker itself.
- (void)dealloc {
  QueueState& queue = **_state;
  {
    std::lock_guard lock(queue.mutex);
    queue.stop = true;
    queue.changed.notify_all();
  }
  if (queue.worker.get_id() == std::this_thread::get_id()) {
    queue.worker.detach();
  } else if (queue.worker.joinable()) {
    queue.worker.join();
  }
  delete _state;
  [_label release];
  [_device release];
  [super dealloc];
}

- (id<MTLDevice>)device {
  return _device;
}

- (id<MTLCommandBuffer>)bufferRetaining:(BOOL)retaining
                           errorOptions:(MTLCommandBufferErrorOption)options {
  if (strikes(Fault::command_buffer_is_nil)) return nil;
  if (!take_slot(**_state)) {
    broken(rules::queue_exhausted, "%zu command buffers of this queue were never committed",
           (*_state)->limit);
    return nil;
  }
  return [[[SoftmetalCommandBuffer alloc] initWithQueue:self
                                     retainedReferences:retaining
                                           errorOptions:options] autorelease];
}

- (id<MTLCommandBuffer>)commandBuffer {
  return [self bufferRetaining:YES errorOptions:MTLCommandBufferErrorOptionNone];
}

- (id<MTLCommandBuffer>)commandBufferWithUnretainedReferences {
  return [self bufferRetaining:NO errorOptions:MTLCommandBufferErrorOptionNone];
}

- (id<MTLCommandBuffer>)commandBufferWithDescriptor:(MTLCommandBufferDescriptor*)descriptor {
  return [self bufferRetaining:descriptor.retainedReferences errorOptions:descriptor.errorOptions];
}

@end

@implementation MTLCommandBufferDescriptor
@synthesize retainedReferences = _retainedReferences;
@synthesize errorOptions = _errorOptions;

- (id)init {
  if ((self = [super init])) _retainedReferences = YES;
  return self;
}

- (id)copyWithZone:(NSZone*)zone {
  MTLCommandBufferDescriptor* copy = [[[self class] allocWithZone:zone] init];
  copy->_retainedReferences = _retainedReferences;
  copy->_errorOptions = _errorOptions;
  return copy;
}

@end
