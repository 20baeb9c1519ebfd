#include "encode.hpp"
#include "judge.hpp"

using namespace softmetal;

@implementation MPSNNInitialGradient

- (instancetype)initWithDevice:(id<MTLDevice>)device {
  return [super initWithDevice:device];
}

- (void)softmetalEncode:(MPSImageBatch*)sources
                     to:(MPSImageBatch*)destinations
                 buffer:(id<MTLCommandBuffer>)buffer {
  const auto judge = [&] {
    for (NSUInteger i = 0; i < sources.count; ++i) {
      MPSImage* result = [destinations objectAtIndex:i];
      if (same_shape(result, [sources objectAtIndex:i])) continue;
      broken(rules::destination_shape, "an initial gradient");
      return false;
    }
    return true;
  };
  const auto ones = [](const std::vector<Batch>& values) {
    Batch results = values[0];
    for (Values& image : results) std::fill(image.data.begin(), image.data.end(), 1.0);
    return results;
  };
  encode({.what = "MPSNNInitialGradient",
          .kernel = self,
          .buffer = buffer,
          .sources = {{"source images", sources, false, false}},
          .destination = {"destination images", destinations},
          .judge = judge,
          .run = ones,
          .undefined = ![self softmetalHasDefaultGeometry]});
}

@end
