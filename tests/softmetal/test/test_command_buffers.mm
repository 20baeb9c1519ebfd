// Rules of command buffers, queues and encoders.
#include "scene.hpp"

namespace {

void after_commit() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  s.forward(buffer);
  s.finish(buffer);
  breaks("encode_after_commit", [&] { s.forward(buffer); });
  breaks("encode_after_commit",
         [&] { [[s.losses objectAtIndex:0] synchronizeOnCommandBuffer:buffer]; });
  breaks("encode_after_commit", [&] { [buffer blitCommandEncoder]; });
  breaks("encode_after_commit", [&] {
    [MPSTemporaryImage temporaryImageWithCommandBuffer:buffer imageDescriptor:describe(s.shape)];
  });
  breaks("committed_twice", [&] { [buffer commit]; });
  breaks("committed_twice", [&] { [buffer enqueue]; });
  breaks("handler_after_commit", [&] {
    [buffer addCompletedHandler:^(id<MTLCommandBuffer>){
    }];
  });
  breaks("handler_after_commit", [&] {
    [buffer addScheduledHandler:^(id<MTLCommandBuffer>){
    }];
  });
}

void waiting() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  breaks("wait_before_commit", [&] { [buffer waitUntilCompleted]; });
  breaks("wait_before_commit", [&] { [buffer waitUntilScheduled]; });
  [buffer enqueue];
  breaks("wait_before_commit", [&] { [buffer waitUntilCompleted]; });
  softmetal_set_on_violation("record");  // nobody could catch what a worker thread raises
  [buffer addCompletedHandler:^(id<MTLCommandBuffer> done) {
    [done waitUntilCompleted];
  }];
  [buffer commit];
  [buffer waitUntilCompleted];
  softmetal_set_on_violation("raise");
  check(softmetal_violations_of("wait_in_handler") == 1, "waiting in the own handler");
  softmetal_clear_violations();
}

void in_handler() {
  Scene s;
  id<MTLCommandBuffer> later = [s.buffer() retain];
  id<MTLCommandBuffer> buffer = s.buffer();
  [buffer addCompletedHandler:^(id<MTLCommandBuffer> done) {
    [later commit];
    // The later buffer needs this very thread to complete.
    breaks("wait_in_handler", [&] { [later waitUntilCompleted]; });
    breaks("wait_in_handler", [&] { [done waitUntilCompleted]; });
  }];
  [buffer commit];
  [buffer waitUntilCompleted];
  [later waitUntilCompleted];
  [later release];
}

void dropping() {
  Scene s;
  breaks("enqueued_and_dropped", [&] {
    @autoreleasepool {
      [s.buffer() enqueue];
    }
  });
  allowed("the queue goes on behind it", [&] { s.finish(s.buffer()); });
}

void two_writers() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  WithFault slow("encode_pause", 60000);
  breaks("written_by_two_threads", [&] {
    InThread other([&] { s.forward(buffer); });
    slow.wait_for_strike();
    s.gradient(buffer);
  });
  allowed("one thread after the other", [&] {
    InThread([&] { s.forward(buffer); }).join();
    s.finish(buffer);
  });
}

void full_queue() {
  Scene s;
  softmetal_set_block_seconds(0.05);
  NSMutableArray* buffers = [NSMutableArray array];
  for (int i = 0; i < 64; ++i) [buffers addObject:s.buffer()];
  breaks("queue_exhausted", [&] { s.buffer(); });
  [[buffers objectAtIndex:0] commit];
  [[buffers objectAtIndex:0] waitUntilCompleted];
  allowed("a completed buffer frees its slot", [&] { s.buffer(); });
  softmetal_set_block_seconds(5);
}

void blocking() {
  Scene s;
  WithFault late("completion_late", 60, 0, 1);
  allowed("the 65th buffer waits for the first", [&] {
    NSDate* start = [NSDate date];
    for (int i = 0; i < 64; ++i) [s.buffer() commit];
    id<MTLCommandBuffer> last = s.buffer();
    check(-[start timeIntervalSinceNow] > 0.04, "it was there at once");
    s.finish(last);
  });
}

void encoders() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  @autoreleasepool {
    id<MTLBlitCommandEncoder> encoder = [buffer blitCommandEncoder];
    breaks("encoder_left_open", [&] { s.forward(buffer); });
    breaks("encoder_left_open", [&] { [buffer commit]; });
    breaks("encoder_left_open", [&] { [buffer blitCommandEncoder]; });
    breaks("encoder_left_open",
           [&] { [[s.losses objectAtIndex:0] synchronizeOnCommandBuffer:buffer]; });
    [encoder endEncoding];
    breaks("encoder_used_after_end", [&] { [encoder endEncoding]; });
    breaks("encoder_used_after_end",
           [&] { [encoder synchronizeResource:[[s.losses objectAtIndex:0] texture]]; });
  }
  breaks("encoder_released_open", [&] {
    @autoreleasepool {
      [buffer blitCommandEncoder];
    }
  });
  allowed("encoding after endEncoding", [&] {
    s.forward(buffer);
    id<MTLBlitCommandEncoder> encoder = [buffer blitCommandEncoder];
    for (MPSImage* image in s.losses) [encoder synchronizeResource:image.texture];
    [encoder endEncoding];
    [buffer commit];
    [buffer waitUntilCompleted];
    check_near(values_of([s.losses objectAtIndex:0])[0], 0.125, 0,
               "read after a blit of one's own");
  });
}

void order() {
  Scene s;
  allowed("enqueue first, commit last", [&] {
    __block NSMutableArray* ran = [NSMutableArray array];
    id<MTLCommandBuffer> first = s.buffer(), second = s.buffer();
    first.label = @"first";
    second.label = @"second";
    for (id<MTLCommandBuffer> buffer in @[ first, second ]) {
      [buffer addCompletedHandler:^(id<MTLCommandBuffer> done) {
        [ran addObject:done.label];
      }];
      [buffer enqueue];
    }
    check(first.status == MTLCommandBufferStatusEnqueued, "enqueued");
    [second commit];
    sleep_milliseconds(10);
    check(second.status == MTLCommandBufferStatusCommitted, "the second waits for the first");
    [first commit];
    [second waitUntilCompleted];
    check([ran isEqual:@[ @"first", @"second" ]], "order of completion");
    check(second.GPUStartTime >= first.GPUEndTime && first.GPUStartTime > 0, "times");
  });
}

void handlers() {
  Scene s;
  allowed("handlers", [&] {
    __block int scheduled = 0, completed = 0;
    id<MTLCommandBuffer> buffer = s.buffer();
    [buffer addScheduledHandler:^(id<MTLCommandBuffer>) {
      ++scheduled;
    }];
    for (int i = 0; i < 3; ++i) {
      [buffer addCompletedHandler:^(id<MTLCommandBuffer> done) {
        check(done.status == MTLCommandBufferStatusCompleted, "status in a handler");
        sleep_milliseconds(5);
        ++completed;
      }];
    }
    [buffer commit];
    [buffer waitUntilScheduled];
    [buffer waitUntilCompleted];
    check(scheduled == 1 && completed == 3, "all handlers have returned before wait does");
  });
}

void captured() {
  Scene s;
  id<MTLCommandBuffer> buffer = nil;
  __block bool lived = false;
  @autoreleasepool {
    buffer = [s.buffer() retain];
    MPSImage* image = make_image(s.device, {1, 1, 1}, 3);
    [buffer addCompletedHandler:^(id<MTLCommandBuffer>) {
      lived = image.width == 1;
    }];
  }
  check(softmetal_live_objects("MPSImage") > 10, "images");
  allowed("use of a captured image", [&] {
    [buffer commit];
    [buffer waitUntilCompleted];
  });
  check(lived, "the handler ran");
  [buffer release];
}

void wrapped() {
  Scene s;
  allowed("commitAndContinue moves temporaries on", [&] {
    MPSCommandBuffer* buffer = [MPSCommandBuffer commandBufferFromCommandQueue:s.queue];
    id<MTLCommandBuffer> first = [[buffer.rootCommandBuffer retain] autorelease];
    MPSTemporaryImage* temporary =
        [MPSTemporaryImage temporaryImageWithCommandBuffer:buffer
                                           imageDescriptor:describe(s.shape)];
    NSArray* one = @[ [s.predictions objectAtIndex:0] ];
    Held<MPSNNInitialGradient*> ones([[MPSNNInitialGradient alloc] initWithDevice:s.device]);
    [ones.get() encodeBatchToCommandBuffer:buffer
                              sourceImages:one
                         destinationImages:@[ temporary ]];
    [buffer commitAndContinue];
    check(buffer.status == MTLCommandBufferStatusNotEnqueued, "a new root");
    [s.loss.get() encodeBatchToCommandBuffer:buffer
                                sourceImages:@[ temporary ]
                                      labels:one
                                     weights:nil
                           destinationStates:nil
                           destinationImages:@[ [s.losses objectAtIndex:0] ]];
    [[s.losses objectAtIndex:0] synchronizeOnCommandBuffer:buffer];
    [buffer commit];
    [buffer waitUntilCompleted];
    check(first.status == MTLCommandBufferStatusCompleted, "the first root");
    check_near(values_of([s.losses objectAtIndex:0])[0], 0.5625, 0, "value through a temporary");
  });
}

void foreign() {
  ManagedStorage managed;
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  s.forward(buffer);
  [buffer commit];  // before the results were synchronised
  [buffer waitUntilCompleted];
  breaks("read_unsynchronised", [&] { values_of([s.losses objectAtIndex:0]); });
}

const Registration all[] = {
    {"commit ends encoding", after_commit},
    {"waits that cannot end", waiting},
    {"wait in a handler, raised", in_handler},
    {"an enqueued buffer is dropped", dropping},
    {"two threads in one buffer", two_writers},
    {"no slot can come free", full_queue},
    {"64 uncompleted buffers block", blocking},
    {"encoders", encoders},
    {"buffers run in the order of enqueuing", order},
    {"handlers", handlers},
    {"a copied block keeps what it captured", captured},
    {"MPSCommandBuffer", wrapped},
    {"somebody else commits", foreign},
};

}  // namespace
