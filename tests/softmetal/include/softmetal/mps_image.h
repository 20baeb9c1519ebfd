// MPSImage, its descriptor, temporary images, allocators and batches.
#pragma once
#include <softmetal/mps_types.h>

NS_ASSUME_NONNULL_BEGIN
@class MPSImage;
@class MPSKernel;
struct SoftmetalImage;

SOFTMETAL_EXPORT
@interface MPSImageDescriptor : SoftmetalObject <NSCopying> {
 @private
  NSUInteger _width, _height, _featureChannels, _numberOfImages;
  MPSImageFeatureChannelFormat _channelFormat;
  MTLCPUCacheMode _cpuCacheMode;
  MTLStorageMode _storageMode;
  BOOL _storageModeIsSet;
  MTLTextureUsage _usage;
}
@property(readwrite, nonatomic) NSUInteger width;
@property(readwrite, nonatomic) NSUInteger height;
@property(readwrite, nonatomic) NSUInteger featureChannels;
@property(readwrite, nonatomic) NSUInteger numberOfImages;
@property(readonly, nonatomic) MTLPixelFormat pixelFormat;
@property(readwrite, nonatomic) MPSImageFeatureChannelFormat channelFormat;
@property(readwrite, nonatomic) MTLCPUCacheMode cpuCacheMode;
@property(readwrite, nonatomic) MTLStorageMode storageMode;
@property(readwrite, nonatomic) MTLTextureUsage usage;
+ (instancetype)imageDescriptorWithChannelFormat:(MPSImageFeatureChannelFormat)channelFormat
                                           width:(NSUInteger)width
                                          height:(NSUInteger)height
                                 featureChannels:(NSUInteger)featureChannels;
+ (instancetype)imageDescriptorWithChannelFormat:(MPSImageFeatureChannelFormat)channelFormat
                                           width:(NSUInteger)width
                                          height:(NSUInteger)height
                                 featureChannels:(NSUInteger)featureChannels
                                  numberOfImages:(NSUInteger)numberOfImages
                                           usage:(MTLTextureUsage)usage;
- (instancetype)copyWithZone:(nullable NSZone*)zone;
@end

typedef NSArray<MPSImage*> MPSImageBatch;

@protocol MPSImageAllocator <NSObject, NSSecureCoding>
@required
- (MPSImage*)imageForCommandBuffer:(id<MTLCommandBuffer>)cmdBuf
                   imageDescriptor:(MPSImageDescriptor*)descriptor
                            kernel:(MPSKernel*)kernel;
@optional
- (MPSImageBatch*)imageBatchForCommandBuffer:(id<MTLCommandBuffer>)cmdBuf
                             imageDescriptor:(MPSImageDescriptor*)descriptor
                                      kernel:(MPSKernel*)kernel
                                       count:(NSUInteger)count;
@end

SOFTMETAL_EXPORT
@interface MPSImage : SoftmetalObject {
 @package
  struct SoftmetalImage* _softmetal;
  NSString* _label;
}
@property(readonly, retain, nonatomic) id<MTLDevice> device;
@property(readonly, nonatomic) NSUInteger width;
@property(readonly, nonatomic) NSUInteger height;
@property(readonly, nonatomic) NSUInteger featureChannels;
@property(readonly, nonatomic) NSUInteger numberOfImages;
@property(readonly, nonatomic) MTLTextureType textureType;
@property(readonly, nonatomic) MTLPixelFormat pixelFormat;
@property(readonly, nonatomic) NSUInteger precision;
@property(readonly, nonatomic) MTLTextureUsage usage;
@property(readonly, nonatomic) MPSImageFeatureChannelFormat featureChannelFormat;
@property(readonly, nonatomic) size_t pixelSize;
@property(readonly, nonatomic) id<MTLTexture> texture;
@property(copy, atomic, nullable) NSString* label;
@property(readonly, nullable, retain, nonatomic) MPSImage* parent;
- (instancetype)initWithDevice:(id<MTLDevice>)device
               imageDescriptor:(const MPSImageDescriptor*)imageDescriptor;
- (instancetype)initWithTexture:(id<MTLTexture>)texture featureChannels:(NSUInteger)featureChannels;
- (instancetype)initWithParentImage:(MPSImage*)parent
                         sliceRange:(NSRange)sliceRange
                    featureChannels:(NSUInteger)featureChannels;
- (instancetype)init SOFTMETAL_UNAVAILABLE;
- (MPSImageBatch*)batchRepresentation;
- (MPSImageBatch*)batchRepresentationWithSubRange:(NSRange)subRange;
- (MPSImage*)subImageWithFeatureChannelRange:(NSRange)range;
- (NSUInteger)resourceSize;
- (MPSPurgeableState)setPurgeableState:(MPSPurgeableState)state;
- (void)synchronizeOnCommandBuffer:(id<MTLCommandBuffer>)commandBuffer;
@end

@interface MPSImage (Allocator)
+ (id<MPSImageAllocator>)defaultAllocator;
@end

@interface MPSImage (Bytes)
- (void)readBytes:(void*)dataBytes
       dataLayout:(MPSDataLayout)dataLayout
       imageIndex:(NSUInteger)imageIndex;
- (void)writeBytes:(const void*)dataBytes
        dataLayout:(MPSDataLayout)dataLayout
        imageIndex:(NSUInteger)imageIndex;
- (void)readBytes:(void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
           bytesPerRow:(NSUInteger)bytesPerRow
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)featureChannelInfo
            imageIndex:(NSUInteger)imageIndex;
- (void)writeBytes:(const void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
           bytesPerRow:(NSUInteger)bytesPerRow
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)featureChannelInfo
            imageIndex:(NSUInteger)imageIndex;
- (void)readBytes:(void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
           bytesPerRow:(NSUInteger)bytesPerRow
         bytesPerImage:(NSUInteger)bytesPerImage
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)featureChannelInfo
            imageIndex:(NSUInteger)imageIndex;
- (void)writeBytes:(const void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
           bytesPerRow:(NSUInteger)bytesPerRow
         bytesPerImage:(NSUInteger)bytesPerImage
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)featureChannelInfo
            imageIndex:(NSUInteger)imageIndex;
- (void)writeBytes:(const void*)dataBytes
            dataLayout:(MPSDataLayout)dataLayout
        bytesPerColumn:(NSUInteger)bytesPerColumn
           bytesPerRow:(NSUInteger)bytesPerRow
         bytesPerImage:(NSUInteger)bytesPerImage
                region:(MTLRegion)region
    featureChannelInfo:(MPSImageReadWriteParams)featureChannelInfo
            imageIndex:(NSUInteger)imageIndex;
@end

SOFTMETAL_EXPORT
@interface MPSTemporaryImage : MPSImage
+ (instancetype)temporaryImageWithCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                                imageDescriptor:(const MPSImageDescriptor*)imageDescriptor;
+ (void)prefetchStorageWithCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                     imageDescriptorList:(NSArray<MPSImageDescriptor*>*)descriptorList;
- (instancetype)initWithTexture:(id<MTLTexture>)texture
                featureChannels:(NSUInteger)featureChannels SOFTMETAL_UNAVAILABLE;
- (instancetype)initWithDevice:(id<MTLDevice>)device
               imageDescriptor:(const MPSImageDescriptor*)imageDescriptor SOFTMETAL_UNAVAILABLE;
@property(readwrite, nonatomic) NSUInteger readCount;
@end

@interface MPSTemporaryImage (Allocator)
+ (id<MPSImageAllocator>)defaultAllocator;
@end

MTL_EXTERN NSUInteger MPSImageBatchIncrementReadCount(MPSImageBatch* batch, NSInteger amount);
MTL_EXTERN void MPSImageBatchSynchronize(MPSImageBatch* batch, id<MTLCommandBuffer> cmdBuf);
MTL_EXTERN NSUInteger MPSImageBatchResourceSize(MPSImageBatch* batch);
MTL_EXTERN NSInteger MPSImageBatchIterate(MPSImageBatch* batch,
                                          NSInteger (^iterator)(MPSImage* image, NSUInteger index));
NS_ASSUME_NONNULL_END
