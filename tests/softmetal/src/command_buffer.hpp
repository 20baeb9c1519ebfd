// What is inside a command buffer, and how commands get into it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "heap.hpp"
#import "metal_objects.hpp"

namespace softmetal {

enum class Touch { reads, writes, synchronises };

struct Access {
  std::shared_ptr<Texels> texels;
  Touch touch;
};

struct Command {
  std::vector<Access> accesses;
  std::function<void()> run;
};

struct BufferState {
  std::mutex mutex;
  std::condition_variable changed;
  MTLCommandBufferStatus status = MTLCommandBufferStatusNotEnqueued;
  bool retains_references = true;
  MTLCommandBufferErrorOption error_options = MTLCommandBufferErrorOptionNone;
  bool finished = false;  // completed, and all handlers have returned
  bool encoder_open = false;
  bool goes = false;  // what its blocks own is freed from here on, and must ask it nothing
  std::vector<Command> commands;
  std::vector<id> references;  // what keeps the textures of the commands alive
  std::vector<MTLCommandBufferHandler> scheduled_handlers, completed_handlers;
  std::shared_ptr<Heap> heap = std::make_shared<Heap>();
  NSError* error = nil;
  double gpu_start = 0, gpu_end = 0;
  std::atomic<std::thread::id> writer{};  // the thread that encodes or commits just now

  bool committed() const { return status >= MTLCommandBufferStatusCommitted; }
};

/// The Metal buffer inside however many MPSCommandBuffers.
SoftmetalCommandBuffer* root_of(id<MTLCommandBuffer> buffer);

/// One thread's time inside a command buffer. Judges that the buffer may be written to at all and
/// that no other thread is inside.
class BufferWriter {
 public:
  BufferWriter(id<MTLCommandBuffer> buffer, const char* doing);
  ~BufferWriter();
  BufferWriter(const BufferWriter&) = delete;
  BufferWriter& operator=(const BufferWriter&) = delete;

  /// False: a rule was broken, do nothing.
  explicit operator bool() const { return buffer_ != nil; }
  BufferState& state() const { return *buffer_->_state; }
  id<MTLDevice> device() const;
  /// Adds a command, and keeps the textures alive if the buffer retains its references.
  void append(Command command, const std::vector<SoftmetalTexture*>& textures) const;

 private:
  SoftmetalCommandBuffer* buffer_ = nil;
  bool outermost_ = false;
};

/// Runs a committed buffer to its end; called by the worker of its queue.
void run(SoftmetalCommandBuffer* buffer);

/// How the queue takes part. A buffer that is enqueued twice keeps its first place.
void enqueue(QueueState& queue, SoftmetalCommandBuffer* buffer);
void commit(QueueState& queue, SoftmetalCommandBuffer* buffer);
void drop(QueueState& queue, SoftmetalCommandBuffer* buffer);
void free_slot(QueueState& queue);
/// True on a thread that runs a completed handler of this queue just now.
bool in_handler_of(const QueueState& queue);
/// Marks the calling thread as running handlers of this queue, or of none.
void set_in_handler_of(const QueueState* queue);

}  // namespace softmetal
