// Rules of images and textures, and how images lie in memory.
#include <cmath>
#include <limits>

#include "scene.hpp"

namespace {

void limits() {
  Scene s;
  id<MTLDevice> device = s.device;
  breaks("image_format", [&] { make_image(device, {}, MPSImageFeatureChannelFormatNone); });
  breaks("image_format", [&] { make_image(device, {}, MPSImageFeatureChannelFormat_reserved0); });
  breaks("image_format", [&] { make_texture(device, 1, 1, 1, MTLPixelFormatBGRA8Unorm); });
  breaks("empty_image", [&] { make_image(device, {0, 1, 1}); });
  breaks("empty_image", [&] { make_image(device, {1, 1, 0}); });
  breaks("empty_image", [&] { make_texture(device, 1, 0, 1, MTLPixelFormatR32Float); });
  breaks("slices_over_limit", [&] { make_image(device, {1, 1, 8193}); });
  breaks("slices_over_limit", [&] {
    MPSImageDescriptor* d = describe({1, 1, 8});
    d.numberOfImages = 1025;
    [[[MPSImage alloc] initWithDevice:device imageDescriptor:d] autorelease];
  });
  breaks("slices_over_limit", [&] { make_texture(device, 1, 1, 2049, MTLPixelFormatRGBA32Float); });
  breaks("extent_over_limit", [&] { make_image(device, {1, 16385, 1}); });
  breaks("extent_over_limit", [&] { make_texture(device, 1, 16385, 1, MTLPixelFormatR32Float); });
  allowed("the largest images", [&] {
    check(make_image(device, {1, 1, 8192}).texture.arrayLength == 2048, "2048 slices");
    check(make_image(device, {1, 16384, 1}).texture.width == 16384, "16384 pixels");
  });
}

void wrapping() {
  Scene s;
  const auto wrap = [&](id<MTLTexture> texture, NSUInteger channels) {
    return [[[MPSImage alloc] initWithTexture:texture featureChannels:channels] autorelease];
  };
  id<MTLTexture> flat = make_texture(s.device, 2, 2, 1, MTLPixelFormatRGBA32Float);
  id<MTLTexture> array = make_texture(s.device, 2, 2, 6, MTLPixelFormatRGBA16Float);
  breaks("texture_shape", [&] { wrap(flat, 5); });
  breaks("texture_shape", [&] { wrap(array, 13); });
  breaks("texture_shape", [&] { wrap(array, 0); });
  breaks("texture_shape",
         [&] { wrap(make_texture(s.device, 2, 2, 1, MTLPixelFormatR32Float), 3); });
  breaks("texture_shape", [&] {
    [[[MPSImage alloc] initWithParentImage:make_image(s.device, {1, 1, 12})
                                sliceRange:NSMakeRange(2, 2)
                           featureChannels:8] autorelease];
  });
  breaks("texture_shape", [&] {
    MTLTextureDescriptor* d =
        [MTLTextureDescriptor texture2DDescriptorWithPixelFormat:MTLPixelFormatR32Float
                                                           width:1
                                                          height:1
                                                       mipmapped:NO];
    d.textureType = MTLTextureType3D;
    [[s.device.get() newTextureWithDescriptor:d] release];
  });
  allowed("textures of whole images", [&] {
    check(wrap(flat, 3).numberOfImages == 1, "RGB in RGBA");
    MPSImage* three = wrap(array, 8);
    check(three.numberOfImages == 3 && three.featureChannelFormat == float16, "three images");
    check(three.batchRepresentation.count == 3, "batch");
    check(three.resourceSize == 0 && three.texture == array, "somebody else's storage");
  });
}

void bytes() {
  Scene s;
  MPSImage* image = make_image(s.device, {2, 3, 8}, 1);
  std::vector<float> values(2 * 3 * 8);
  const auto read = [&](MTLRegion region, MPSImageReadWriteParams channels, NSUInteger index) {
    [image readBytes:values.data()
                dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels
               bytesPerRow:3 * 8 * 4
                    region:region
        featureChannelInfo:channels
                imageIndex:index];
  };
  const MTLRegion all = MTLRegionMake2D(0, 0, 3, 2);
  breaks("region_out_of_bounds", [&] { read(MTLRegionMake2D(1, 0, 3, 2), {0, 8}, 0); });
  breaks("region_out_of_bounds", [&] { read(MTLRegionMake3D(0, 0, 0, 3, 2, 2), {0, 8}, 0); });
  breaks("region_out_of_bounds", [&] { read(all, {0, 8}, 1); });
  breaks("region_out_of_bounds", [&] { read(all, {2, 4}, 0); });
  breaks("region_out_of_bounds", [&] { read(all, {4, 3}, 0); });
  breaks("region_out_of_bounds", [&] { read(all, {4, 8}, 0); });
  breaks("region_out_of_bounds", [&] { read(all, {0, 0}, 0); });
  breaks("region_out_of_bounds", [&] {
    [image writeBytes:values.data()
           dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels
           imageIndex:1];
  });
  breaks("region_out_of_bounds",
         [&] { [image subImageWithFeatureChannelRange:NSMakeRange(2, 4)]; });
  id<MTLTexture> texture = image.texture;
  breaks("region_out_of_bounds", [&] {
    [texture getBytes:values.data()
          bytesPerRow:48
        bytesPerImage:0
           fromRegion:all
          mipmapLevel:0
                slice:2];
  });
  allowed("regions inside", [&] {
    read(all, {4, 4}, 0);
    read(all, {0, 3}, 0);
  });
}

void private_storage() {
  Scene s;
  MPSImageDescriptor* d = describe({1, 1, 1});
  d.storageMode = MTLStorageModePrivate;
  MPSImage* image = [[[MPSImage alloc] initWithDevice:s.device imageDescriptor:d] autorelease];
  float value = 0;
  breaks("private_cpu_access", [&] { values_of(image); });
  breaks("private_cpu_access", [&] { [image writeBytes:&value dataLayout:{} imageIndex:0]; });
  breaks("private_cpu_access", [&] {
    [image.texture replaceRegion:MTLRegionMake2D(0, 0, 1, 1)
                     mipmapLevel:0
                       withBytes:&value
                     bytesPerRow:4];
  });
}

void synchronising() {
  ManagedStorage managed;
  Scene s;
  MPSImage* result = [s.losses objectAtIndex:0];
  const auto run = [&](bool before, bool after) {
    id<MTLCommandBuffer> buffer = s.buffer();
    if (before) [result synchronizeOnCommandBuffer:buffer];
    s.forward(buffer);
    if (after) [result synchronizeOnCommandBuffer:buffer];
    [buffer commit];
    [buffer waitUntilCompleted];
  };
  run(false, false);
  breaks("read_unsynchronised", [&] {
    check(std::isnan(values_of(result)[0]), "stale contents are what the CPU had: nothing");
  });
  breaks("read_unsynchronised", [&] {
    float bytes[4];
    [result.texture getBytes:bytes
                 bytesPerRow:48
               bytesPerImage:0
                  fromRegion:MTLRegionMake2D(0, 0, 1, 1)
                 mipmapLevel:0
                       slice:0];
  });
  run(true, false);
  breaks("read_unsynchronised", [&] { values_of(result); });
  run(false, true);
  allowed("after the last write", [&] { check_near(values_of(result)[0], 0.125, 0, "value"); });
  s.loss.get().weight = 3;
  run(false, false);
  breaks("read_unsynchronised",
         [&] { check_near(values_of(result)[0], 0.125, 0, "the value of before"); });
}

void lazy() {
  ManagedStorage managed;
  Scene s;
  id<MTLCommandBuffer> first = s.buffer(), second = s.buffer();
  MPSImageBatchSynchronize(s.losses, first);  // lazily allocated: nothing is encoded
  s.forward(second);
  [second commit];
  [second waitUntilCompleted];
  [first commit];
  [first waitUntilCompleted];
  breaks("read_unsynchronised", [&] { values_of([s.losses objectAtIndex:0]); });
}

void reading_in_flight() {
  Scene s;
  WithFault late("completion_late", 250);
  id<MTLCommandBuffer> buffer = s.buffer();
  s.forward(buffer);
  MPSImageBatchSynchronize(s.losses, buffer);
  allowed("before the commit", [&] {
    const std::vector<float> values(s.shape.count(), 0.25f);
    [[s.predictions objectAtIndex:0] writeBytes:values.data() dataLayout:{} imageIndex:0];
  });
  [buffer commit];
  breaks("access_in_flight", [&] {
    const std::vector<float> values(s.shape.count(), 0.25f);
    [[s.predictions objectAtIndex:0] writeBytes:values.data() dataLayout:{} imageIndex:0];
  });
  allowed("reading what the GPU reads", [&] { values_of([s.predictions objectAtIndex:0]); });
  softmetal_allow("read_unwritten", 1);
  breaks("access_in_flight", [&] { values_of([s.losses objectAtIndex:0]); });
  softmetal_allow("read_unwritten", 0);
  [buffer waitUntilCompleted];
}

void unwritten() {
  Scene s;
  breaks("read_unwritten",
         [&] { check(std::isnan(values_of(make_image(s.device, {}))[0]), "NaN"); });
  s.labels = @[ make_image(s.device, s.shape), make_image(s.device, s.shape) ];
  breaks("read_unwritten", [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.finish(buffer);
  });
}

void padding() {
  Scene s;
  id<MTLTexture> texture = make_texture(s.device, 3, 2, 2, MTLPixelFormatRGBA32Float);
  MPSImage* wrapped = [[[MPSImage alloc] initWithTexture:texture featureChannels:5] autorelease];
  s.labels = @[ wrapped, wrapped ];
  const auto fill = [&](float padding_value) {
    for (NSUInteger slice = 0; slice < 2; ++slice) {
      std::vector<float> texels(3 * 2 * 4, 0.75f);
      for (size_t i = 0; slice == 1 && i < texels.size(); ++i) {
        if (i % 4 > 0) texels[i] = padding_value;
      }
      [texture replaceRegion:MTLRegionMake2D(0, 0, 3, 2)
                 mipmapLevel:0
                       slice:slice
                   withBytes:texels.data()
                 bytesPerRow:48
               bytesPerImage:96];
    }
  };
  const auto encode = [&] {
    id<MTLCommandBuffer> buffer = s.buffer();
    s.forward(buffer);
    s.finish(buffer);
  };
  fill(std::numeric_limits<float>::quiet_NaN());
  breaks("padding_not_finite", encode);
  fill(INFINITY);
  breaks("padding_not_finite", encode);
  fill(1000);
  allowed("finite padding", encode);
  check_near(values_of([s.losses objectAtIndex:0])[4], 0.125, 0, "it does not count");
  id<MTLTexture> fresh = make_texture(s.device, 3, 2, 2, MTLPixelFormatRGBA32Float);
  MPSImage* filled = [[[MPSImage alloc] initWithTexture:fresh featureChannels:5] autorelease];
  const std::vector<float> values(s.shape.count(), 0.75f);
  [filled writeBytes:values.data() dataLayout:{} imageIndex:0];
  s.labels = @[ filled, filled ];
  allowed("padding left by writeBytes", encode);
}

void layout() {
  Scene s;
  const Shape shape{2, 3, 9};
  std::vector<float> values;
  for (NSUInteger i = 0; i < shape.count(); ++i) values.push_back(static_cast<float>(i));
  MPSImage* image = make_image(s.device, shape, values);
  check(image.texture.arrayLength == 3 && image.textureType == MTLTextureType2DArray, "slices");
  check(image.pixelFormat == MTLPixelFormatRGBA32Float && image.pixelSize == 16, "texels");
  float texel[4];
  [image.texture getBytes:texel
              bytesPerRow:48
            bytesPerImage:0
               fromRegion:MTLRegionMake2D(2, 1, 1, 1)
              mipmapLevel:0
                    slice:1];
  for (int c = 0; c < 4; ++c) check_near(texel[c], 5 * 9 + 4 + c, 0, "channel in slice 1");
  std::vector<float> planes(shape.count());
  [image readBytes:planes.data() dataLayout:MPSDataLayoutFeatureChannelsxHeightxWidth imageIndex:0];
  check_near(planes[7 * 6 + 4], 4 * 9 + 7, 0, "channel planes");
  MPSImage* part = [image subImageWithFeatureChannelRange:NSMakeRange(4, 8)];
  check(part.featureChannels == 5 && part.parent == image, "sub-image");
  check_near(values_of(part)[5], 9 + 4, 0, "sub-image, second pixel");
  check(make_image(s.device, {1, 1, 1}).pixelFormat == MTLPixelFormatR32Float, "one channel");
  check(make_image(s.device, {1, 1, 2}).pixelFormat == MTLPixelFormatRG32Float, "two channels");
  check(make_image(s.device, {1, 1, 3}, float16).pixelFormat == MTLPixelFormatRGBA16Float, "three");
}

void rows() {
  Scene s;
  MPSImageDescriptor* d = describe({2, 2, 4});
  d.numberOfImages = 2;
  MPSImage* image = [[[MPSImage alloc] initWithDevice:s.device imageDescriptor:d] autorelease];
  std::vector<float> spaced(200, -1);
  for (int n = 0; n < 2; ++n) {
    for (int y = 0; y < 2; ++y) {
      for (int x = 0; x < 2; ++x) {
        for (int c = 0; c < 4; ++c)
          spaced[n * 80 + y * 30 + x * 10 + c] = n * 16 + y * 8 + x * 4 + c;
      }
    }
  }
  [image writeBytes:spaced.data()
              dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels
          bytesPerColumn:40
             bytesPerRow:120
           bytesPerImage:320
                  region:MTLRegionMake3D(0, 0, 0, 2, 2, 2)
      featureChannelInfo:{0, 4}
              imageIndex:0];
  for (NSUInteger n = 0; n < 2; ++n) {
    float dense[16];
    [image readBytes:dense dataLayout:MPSDataLayoutHeightxWidthxFeatureChannels imageIndex:n];
    for (int i = 0; i < 16; ++i) check_near(dense[i], n * 16.0 + i, 0, "value of an image");
  }
  check(image.resourceSize == 2 * 4 * 16 && image.batchRepresentation.count == 2,
        "old-style batch");
}

void halves() {
  Scene s;
  MPSImage* image = make_image(s.device, {1, 1, 4}, float16);
  const std::vector<uint16_t> bits = {0x3c00, 0x7bff, 0x0001, 0xfc00};
  [image writeBytes:bits.data() dataLayout:{} imageIndex:0];
  std::vector<uint16_t> back(4);
  [image readBytes:back.data() dataLayout:{} imageIndex:0];
  check(back == bits && image.precision == 11, "bytes go in and out as they are");
}

const Registration all[] = {
    {"limits of images", limits},
    {"images around textures", wrapping},
    {"bytes out of bounds", bytes},
    {"private storage", private_storage},
    {"managed images are synchronised before they are read", synchronising},
    {"a texture that does not exist yet is not synchronised", lazy},
    {"the CPU touches what the GPU is using", reading_in_flight},
    {"nobody has written it", unwritten},
    {"NaN in padding channels of a wrapped texture", padding},
    {"slices of four channels", layout},
    {"rows, columns and images with gaps", rows},
    {"half precision", halves},
};

}  // namespace
