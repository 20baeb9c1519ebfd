// Rules of temporary images: one buffer, no CPU, read counts.
#include <cmath>

#include "scene.hpp"

namespace {

MPSTemporaryImage* make_temporary(id<MTLCommandBuffer> buffer, Shape shape) {
  return [MPSTemporaryImage temporaryImageWithCommandBuffer:buffer imageDescriptor:describe(shape)];
}

/// Makes the contents of an image 1.
void fill(const Scene& s, id<MTLCommandBuffer> buffer, MPSImage* image) {
  Held<MPSNNInitialGradient*> ones([[MPSNNInitialGradient alloc] initWithDevice:s.device]);
  [ones.get() encodeToCommandBuffer:buffer
                        sourceImage:[s.predictions objectAtIndex:0]
                   destinationImage:image];
}

/// A forward loss that reads `image` as its source.
void use(const Scene& s, id<MTLCommandBuffer> buffer, MPSImage* image) {
  [s.loss.get() encodeBatchToCommandBuffer:buffer
                              sourceImages:@[ image ]
                                    labels:@[ [s.labels objectAtIndex:0] ]
                                   weights:nil
                         destinationStates:nil
                         destinationImages:@[ [s.losses objectAtIndex:0] ]];
}

void no_cpu() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  MPSTemporaryImage* image = make_temporary(buffer, s.shape);
  const std::vector<float> values(s.shape.count());
  breaks("temporary_cpu_access", [&] { values_of(image); });
  breaks("temporary_cpu_access",
         [&] { [image writeBytes:values.data() dataLayout:{} imageIndex:0]; });
  breaks("private_cpu_access", [&] {
    float texel[4];
    [image.texture getBytes:texel
                bytesPerRow:48
              bytesPerImage:0
                 fromRegion:MTLRegionMake2D(0, 0, 1, 1)
                mipmapLevel:0
                      slice:0];
  });
  allowed("synchronising does nothing", [&] { [image synchronizeOnCommandBuffer:buffer]; });
  image.readCount = 0;
}

void one_buffer() {
  Scene s;
  id<MTLCommandBuffer> first = s.buffer(), second = s.buffer();
  MPSTemporaryImage* image = make_temporary(first, s.shape);
  fill(s, first, image);
  breaks("temporary_on_other_buffer", [&] { use(s, second, image); });
  breaks("temporary_on_other_buffer", [&] { fill(s, second, image); });
  use(s, first, image);
  s.finish(first);
  breaks("temporary_on_other_buffer", [&] { use(s, second, image); });
}

void counts() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  MPSTemporaryImage* image = make_temporary(buffer, s.shape);
  check(image.readCount == 1, "read count at first");
  fill(s, buffer, image);
  fill(s, buffer, image);
  check(image.readCount == 1, "writing does not count");
  use(s, buffer, image);
  check(image.readCount == 0, "reading does");
  breaks("read_count_zero", [&] { use(s, buffer, image); });
  breaks("read_count_zero", [&] { fill(s, buffer, image); });
  breaks("read_count_changed_at_zero", [&] { image.readCount = 1; });
  breaks("read_count_changed_at_zero", [&] { image.readCount = 0; });
  allowed("batch functions pass over a count of 0",
          [&] { check(MPSImageBatchIncrementReadCount(@[ image, image ], 1) == 1, "one image"); });
  MPSTemporaryImage* discarded = make_temporary(buffer, s.shape);
  discarded.readCount = 0;
  breaks("read_count_zero", [&] { fill(s, buffer, discarded); });
}

void left_over() {
  Scene s;
  breaks("read_count_left_over", [&] {
    @autoreleasepool {
      id<MTLCommandBuffer> buffer = s.buffer();
      make_temporary(buffer, s.shape);
      [buffer commit];
      [buffer waitUntilCompleted];
    }
  });
  breaks("read_count_left_over", [&] {
    @autoreleasepool {
      make_temporary(s.buffer(), s.shape);  // its buffer is dropped
    }
  });
  breaks("read_count_left_over", [&] {
    @autoreleasepool {
      id<MTLCommandBuffer> buffer = s.buffer();
      [s.loss.get() encodeBatchToCommandBuffer:buffer
                                  sourceImages:s.predictions
                                        labels:s.labels
                                       weights:nil
                             destinationStates:nullptr
                   destinationStateIsTemporary:NO];
      [buffer commit];
      [buffer waitUntilCompleted];
    }
    s.loss.get().offset = {0, 0, 0};
  });
}

void unique() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  MPSTemporaryImage* image = make_temporary(buffer, s.shape);
  fill(s, buffer, image);
  allowed("one image as a whole batch", [&] {
    [s.loss.get() encodeBatchToCommandBuffer:buffer
                                sourceImages:@[ image, image ]
                                      labels:s.labels
                                     weights:nil
                           destinationStates:nil
                           destinationImages:s.losses];
    check(image.readCount == 0, "read count");
  });
  MPSTemporaryImage* other = make_temporary(buffer, s.shape);
  check(MPSImageBatchIncrementReadCount(@[ other, other, [s.losses objectAtIndex:0] ], 2) == 2,
        "2");
  check(other.readCount == 3, "read count of 1 + 2");
  MPSImageBatchIncrementReadCount(@[ other ], -3);
  check(other.readCount == 0, "given back");
}

void forgetting() {
  Scene s;
  WithFault forgets("forget_read_count_decrement");
  allowed("what is left is set to 0", [&] {
    @autoreleasepool {
      id<MTLCommandBuffer> buffer = s.buffer();
      MPSTemporaryImage* image = make_temporary(buffer, s.shape);
      fill(s, buffer, image);
      use(s, buffer, image);
      check(image.readCount == 1, "not lowered");
      if (image.readCount > 0) image.readCount = 0;
      s.finish(buffer);
      check_near(values_of([s.losses objectAtIndex:0])[0], 0.0625, 0, "the value is right");
    }
  });
}

void recycled() {
  Scene s;
  id<MTLCommandBuffer> buffer = s.buffer();
  MPSTemporaryImage* image = make_temporary(buffer, s.shape);
  fill(s, buffer, image);
  id<MTLTexture> texture = [[image.texture retain] autorelease];
  MPSImage* same = [[[MPSImage alloc] initWithTexture:texture featureChannels:5] autorelease];
  image.readCount = 0;
  use(s, buffer, same);  // behind the back of the read count
  s.finish(buffer);
  check(std::isnan(values_of([s.losses objectAtIndex:0])[0]), "undefined contents are NaN");
}

const Registration all[] = {
    {"the CPU stays away", no_cpu},
    {"one command buffer", one_buffer},
    {"read counts", counts},
    {"counts that are left over", left_over},
    {"once for every different image", unique},
    {"a kernel that forgets the decrement", forgetting},
    {"memory goes to others at 0", recycled},
};

}  // namespace
