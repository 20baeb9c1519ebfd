// Uses that Apple allows: no rule may fire.
#include <thread>

#include "scene.hpp"

namespace {

void plain() {
  Scene s;
  allowed("plain use", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.gradient(buffer);
    s.finish(buffer);
    check(buffer.status == MTLCommandBufferStatusCompleted, "status");
    check_near(values_of([s.losses objectAtIndex:1])[3], 0.125, 0, "a loss");
    check_near(values_of([s.results objectAtIndex:0])[29], -1, 0, "a gradient");
  });
}

void two_threads() {
  Scene s;
  allowed("sequential use", [&] {
    for (int i = 0; i < 2; ++i) {
      InThread([&] {
        s.loss.get().weight = 2;
        id<MTLCommandBuffer> buffer = s.buffer();
        s.forward(buffer);
        s.finish(buffer);
      }).join();
    }
  });
}

void repeated() {
  Scene s;
  s.weights = @[ [s.weights objectAtIndex:0], [s.weights objectAtIndex:0] ];
  s.gradients = @[ [s.gradients objectAtIndex:1], [s.gradients objectAtIndex:1] ];
  s.labels = s.predictions = @[ [s.labels objectAtIndex:1], [s.labels objectAtIndex:1] ];
  allowed("repeated images", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.gradient(buffer);
    s.finish(buffer);
    check_near(values_of([s.losses objectAtIndex:0])[0], 0, 0, "labels that are the predictions");
  });
}

void cpu_only() {
  Scene s;
  allowed("without a synchronise",
          [&] { check_near(values_of([s.labels objectAtIndex:0])[7], 0.75, 0, "value"); });
}

void shared() {
  Scene s;
  const auto shared_image = [&] {
    MPSImageDescriptor* d = describe(s.shape);
    d.storageMode = MTLStorageModeShared;
    return [[[MPSImage alloc] initWithDevice:s.device imageDescriptor:d] autorelease];
  };
  s.losses = @[ shared_image(), shared_image() ];
  allowed("no synchronise", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    [buffer commit];
    [buffer waitUntilCompleted];
    check_near(values_of([s.losses objectAtIndex:0])[0], 0.125, 0, "value");
  });
}

void gradient_sizes() {
  for (bool reduced : {false, true}) {
    for (bool full : {false, true}) {
      Scene s(MPSCNNLossTypeMeanSquaredError,
              reduced ? MPSCNNReductionTypeSum : MPSCNNReductionTypeNone);
      s.gradients = make_batch(s.device, 2, full ? s.shape : Shape{1, 1, 1}, 3);
      allowed("1x1x1 or full", [&] {
        id<MTLCommandBuffer> buffer = s.buffer();
        s.gradient(buffer);
        s.finish(buffer);
        check_near(values_of([s.results objectAtIndex:1])[29], -1.5, 0, "value");
      });
    }
  }
}

void formats() {
  Scene s;
  const std::vector<uint16_t> halves(s.shape.count(), 0x3800);  // 0.5
  const auto half_image = [&] {
    MPSImage* image = make_image(s.device, s.shape, float16);
    [image writeBytes:halves.data() dataLayout:{} imageIndex:0];
    return image;
  };
  s.labels = @[ half_image(), half_image() ];
  s.results = @[ make_image(s.device, s.shape, float16), make_image(s.device, s.shape, float16) ];
  allowed("float16 and float32", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.gradient(buffer);
    s.finish(buffer);
    check_near(values_of([s.losses objectAtIndex:0])[0], 0.03125, 0, "loss");
    std::vector<uint16_t> bits(s.shape.count());
    [[s.results objectAtIndex:0] readBytes:bits.data() dataLayout:{} imageIndex:0];
    check(bits[0] == 0xb800, "gradient -0.5");
  });
}

void empty_buffer() {
  Scene s;
  allowed("empty", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    [buffer commit];
    [buffer waitUntilCompleted];
    [buffer waitUntilCompleted];
    check(buffer.status == MTLCommandBufferStatusCompleted && !buffer.error, "completed");
  });
  allowed("dropped after an encode", [&] {
    @autoreleasepool {
      s.forward(s.buffer());
    }
  });
}

void conformance() {
  Scene s;
  check([s.device.get() conformsToProtocol:@protocol(MTLDevice)], "MTLDevice");
  check([s.queue.get() conformsToProtocol:@protocol(MTLCommandQueue)], "MTLCommandQueue");
  check([s.buffer() conformsToProtocol:@protocol(MTLCommandBuffer)], "MTLCommandBuffer");
  check(![s.loss.get() conformsToProtocol:@protocol(MTLDevice)], "a kernel is no device");
  check([@"text" conformsToProtocol:@protocol(NSCoding)], "GNUstep's own classes");
  check([[MPSImage defaultAllocator] conformsToProtocol:@protocol(NSSecureCoding)], "adopted");
}

void batch_iteration() {
  Scene s;
  MPSImage *a = [s.labels objectAtIndex:0], *b = [s.labels objectAtIndex:1];
  __block NSUInteger sum = 0;
  const NSInteger last =
      MPSImageBatchIterate(@[ a, a, b ], ^NSInteger(MPSImage*, NSUInteger index) {
        sum += index + 1;
        return NSIntegerMin;
      });
  check(sum == 4 && last == NSIntegerMin, "once for each image, at its first index");
  check(MPSImageBatchIterate(@[ a, b ],
                             ^NSInteger(MPSImage*, NSUInteger) {
                               return 5;
                             }) == 5,
        "stop");
  check(MPSImageBatchResourceSize(@[ a, a ]) == a.resourceSize, "resource size");
}

const Registration all[] = {
    {"allowed: forward, gradient, read back", plain},
    {"allowed: one kernel from two threads, one after the other", two_threads},
    {"allowed: one image many times", repeated},
    {"allowed: reading what only the CPU wrote", cpu_only},
    {"allowed: shared storage without a synchronise", shared},
    {"allowed: source gradients of either size", gradient_sizes},
    {"allowed: different formats among the operands", formats},
    {"allowed: an empty buffer, and one that is dropped", empty_buffer},
    {"protocols can be asked for", conformance},
    {"MPSImageBatchIterate", batch_iteration},
};

}  // namespace
