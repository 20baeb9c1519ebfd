#import <Metal/Metal.h>

@implementation MTLTextureDescriptor
@synthesize textureType = _textureType;
@synthesize pixelFormat = _pixelFormat;
@synthesize width = _width;
@synthesize height = _height;
@synthesize depth = _depth;
@synthesize mipmapLevelCount = _mipmapLevelCount;
@synthesize sampleCount = _sampleCount;
@synthesize arrayLength = _arrayLength;
@synthesize cpuCacheMode = _cpuCacheMode;
@synthesize storageMode = _storageMode;
@synthesize usage = _usage;

- (id)init {
  if (!(self = [super init])) return nil;
  _textureType = MTLTextureType2D;
  _pixelFormat = MTLPixelFormatRGBA8Unorm;
  _width = _height = _depth = _mipmapLevelCount = _sampleCount = _arrayLength = 1;
  _storageMode = MTLStorageModeManaged;
  _usage = MTLTextureUsageShaderRead;
  return self;
}

+ (MTLTextureDescriptor*)texture2DDescriptorWithPixelFormat:(MTLPixelFormat)pixelFormat
                                                      width:(NSUInteger)width
                                                     height:(NSUInteger)height
                                                  mipmapped:(BOOL)mipmapped {
  (void)mipmapped;
  MTLTextureDescriptor* made = [[[self alloc] init] autorelease];
  made.pixelFormat = pixelFormat;
  made.width = width;
  made.height = height;
  return made;
}

- (id)copyWithZone:(NSZone*)zone {
  MTLTextureDescriptor* copy = [[[self class] allocWithZone:zone] init];
  copy->_textureType = _textureType;
  copy->_pixelFormat = _pixelFormat;
  copy->_width = _width;
  copy->_height = _height;
  copy->_depth = _depth;
  copy->_mipmapLevelCount = _mipmapLevelCount;
  copy->_sampleCount = _sampleCount;
  copy->_arrayLength = _arrayLength;
  copy->_cpuCacheMode = _cpuCacheMode;
  copy->_storageMode = _storageMode;
  copy->_usage = _usage;
  return copy;
}

@end
