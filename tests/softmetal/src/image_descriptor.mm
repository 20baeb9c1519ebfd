#include "image.hpp"

#include "judge.hpp"

namespace softmetal {

Channel channel_of(MPSImageFeatureChannelFormat format) {
  switch (format) {
    case MPSImageFeatureChannelFormatUnorm8: return Channel::unorm8;
    case MPSImageFeatureChannelFormatUnorm16: return Channel::unorm16;
    case MPSImageFeatureChannelFormatFloat16: return Channel::float16;
    default: return Channel::float32;
  }
}

// One and two channels take R and RG texels, as users report; more take RGBA.
MTLPixelFormat pixel_format_of(MPSImageFeatureChannelFormat format, NSUInteger channels,
                               NSUInteger images) {
  const std::size_t stored = channels <= 2 && images == 1 ? channels : 4;
  return pixel_format({channel_of(format), stored});
}

}  // namespace softmetal

@implementation MPSImageDescriptor
@synthesize width = _width;
@synthesize height = _height;
@synthesize featureChannels = _featureChannels;
@synthesize numberOfImages = _numberOfImages;
@synthesize channelFormat = _channelFormat;
@synthesize cpuCacheMode = _cpuCacheMode;
@synthesize usage = _usage;

- (id)init {
  if (!(self = [super init])) return nil;
  _width = _height = _featureChannels = _numberOfImages = 1;
  _usage = MTLTextureUsageShaderRead | MTLTextureUsageShaderWrite;
  _storageMode = MTLStorageModeManaged;
  return self;
}

+ (instancetype)imageDescriptorWithChannelFormat:(MPSImageFeatureChannelFormat)channelFormat
                                           width:(NSUInteger)width
                                          height:(NSUInteger)height
                                 featureChannels:(NSUInteger)featureChannels {
  return [self
      imageDescriptorWithChannelFormat:channelFormat
                                 width:width
                                height:height
                       featureChannels:featureChannels
                        numberOfImages:1
                                 usage:MTLTextureUsageShaderRead | MTLTextureUsageShaderWrite];
}

+ (instancetype)imageDescriptorWithChannelFormat:(MPSImageFeatureChannelFormat)channelFormat
                                           width:(NSUInteger)width
                                          height:(NSUInteger)height
                                 featureChannels:(NSUInteger)featureChannels
                                  numberOfImages:(NSUInteger)numberOfImages
                                           usage:(MTLTextureUsage)usage {
  MPSImageDescriptor* made = [[[self alloc] init] autorelease];
  made.channelFormat = channelFormat;
  made.width = width;
  made.height = height;
  made.featureChannels = featureChannels;
  made.numberOfImages = numberOfImages;
  made.usage = usage;
  return made;
}

- (MTLStorageMode)storageMode {
  return _storageMode;
}

- (void)setStorageMode:(MTLStorageMode)mode {
  _storageMode = mode;
  _storageModeIsSet = YES;
}

// The header says managed on a Mac, a page says shared: the default follows the kind of device.
- (MTLStorageMode)storageModeOn:(id<MTLDevice>)device {
  if (_storageModeIsSet) return _storageMode;
  return device.hasUnifiedMemory ? MTLStorageModeShared : MTLStorageModeManaged;
}

- (MTLPixelFormat)pixelFormat {
  return softmetal::pixel_format_of(_channelFormat, _featureChannels, _numberOfImages);
}

- (instancetype)copyWithZone:(NSZone*)zone {
  MPSImageDescriptor* copy = [[[self class] allocWithZone:zone] init];
  copy->_width = _width;
  copy->_height = _height;
  copy->_featureChannels = _featureChannels;
  copy->_numberOfImages = _numberOfImages;
  copy->_channelFormat = _channelFormat;
  copy->_cpuCacheMode = _cpuCacheMode;
  copy->_storageMode = _storageMode;
  copy->_storageModeIsSet = _storageModeIsSet;
  copy->_usage = _usage;
  return copy;
}

@end
