// Enumerations, structures and functions of MPSCore and MPSNeuralNetwork, Apple's raw values.
#pragma once
#include <Metal/Metal.h>

typedef NS_ENUM(uint32_t, MPSCNNLossType) {
  MPSCNNLossTypeMeanAbsoluteError = 0,
  MPSCNNLossTypeMeanSquaredError = 1,
  MPSCNNLossTypeSoftMaxCrossEntropy = 2,
  MPSCNNLossTypeSigmoidCrossEntropy = 3,
  MPSCNNLossTypeCategoricalCrossEntropy = 4,
  MPSCNNLossTypeHinge = 5,
  MPSCNNLossTypeHuber = 6,
  MPSCNNLossTypeCosineDistance = 7,
  MPSCNNLossTypeLog = 8,
  MPSCNNLossTypeKullbackLeiblerDivergence = 9,
  MPSCNNLossTypeCount = 10,
};

typedef NS_ENUM(int32_t, MPSCNNReductionType) {
  MPSCNNReductionTypeNone = 0,
  MPSCNNReductionTypeSum = 1,
  MPSCNNReductionTypeMean = 2,
  MPSCNNReductionTypeSumByNonZeroWeights = 3,
  MPSCNNReductionTypeCount = 4,
};

typedef NS_OPTIONS(NSUInteger, MPSKernelOptions) {
  MPSKernelOptionsNone = 0,
  MPSKernelOptionsSkipAPIValidation = 1,
  MPSKernelOptionsAllowReducedPrecision = 2,
  MPSKernelOptionsDisableInternalTiling = 4,
  MPSKernelOptionsInsertDebugGroups = 8,
  MPSKernelOptionsVerbose = 16,
};

typedef NS_ENUM(NSUInteger, MPSImageEdgeMode) {
  MPSImageEdgeModeZero = 0,
  MPSImageEdgeModeClamp = 1,
  MPSImageEdgeModeMirror = 2,
  MPSImageEdgeModeMirrorWithEdge = 3,
  MPSImageEdgeModeConstant = 4,
};

typedef NS_ENUM(NSUInteger, MPSImageFeatureChannelFormat) {
  MPSImageFeatureChannelFormatNone = 0,
  MPSImageFeatureChannelFormatUnorm8 = 1,
  MPSImageFeatureChannelFormatUnorm16 = 2,
  MPSImageFeatureChannelFormatFloat16 = 3,
  MPSImageFeatureChannelFormatFloat32 = 4,
  MPSImageFeatureChannelFormat_reserved0 = 5,
  MPSImageFeatureChannelFormatCount = 6,
};

typedef NS_ENUM(NSUInteger, MPSDataLayout) {
  MPSDataLayoutHeightxWidthxFeatureChannels = 0,
  MPSDataLayoutFeatureChannelsxHeightxWidth = 1,
};

typedef NS_ENUM(NSUInteger, MPSStateResourceType) {
  MPSStateResourceTypeNone = 0,
  MPSStateResourceTypeBuffer = 1,
  MPSStateResourceTypeTexture = 2,
};

typedef NS_ENUM(NSUInteger, MPSPurgeableState) {
  MPSPurgeableStateAllocationDeferred = 0,
  MPSPurgeableStateKeepCurrent = MTLPurgeableStateKeepCurrent,
  MPSPurgeableStateNonVolatile = MTLPurgeableStateNonVolatile,
  MPSPurgeableStateVolatile = MTLPurgeableStateVolatile,
  MPSPurgeableStateEmpty = MTLPurgeableStateEmpty,
};

typedef NS_OPTIONS(NSUInteger, MPSDeviceOptions) {
  MPSDeviceOptionsDefault = 0,
  MPSDeviceOptionsLowPower = 1,
  MPSDeviceOptionsSkipRemovable = 2,
};

typedef NS_OPTIONS(NSUInteger, MPSNNPaddingMethod) {
  MPSNNPaddingMethodAlignCentered = 0,
  MPSNNPaddingMethodAlignTopLeft = 1,
  MPSNNPaddingMethodAlignBottomRight = 2,
  MPSNNPaddingMethodAlign_reserved = 3,
  MPSNNPaddingMethodAlignMask = 3,
  MPSNNPaddingMethodAddRemainderToTopLeft = 0,
  MPSNNPaddingMethodAddRemainderToTopRight = 4,
  MPSNNPaddingMethodAddRemainderToBottomLeft = 8,
  MPSNNPaddingMethodAddRemainderToBottomRight = 12,
  MPSNNPaddingMethodAddRemainderToMask = 12,
  MPSNNPaddingMethodSizeValidOnly = 0,
  MPSNNPaddingMethodSizeSame = 16,
  MPSNNPaddingMethodSizeFull = 32,
  MPSNNPaddingMethodSize_reserved = 48,
  MPSNNPaddingMethodSizeMask = 0x7f0,
  MPSNNPaddingMethodCustomWhitelistForNodeFusion = 8192,
  MPSNNPaddingMethodCustomAllowForNodeFusion = 8192,
  MPSNNPaddingMethodCustom = 16384,
  MPSNNPaddingMethodExcludeEdges = 32768,
};

typedef struct {
  NSInteger x, y, z;
} MPSOffset;

typedef struct {
  NSUInteger featureChannelOffset;
  NSUInteger numberOfFeatureChannelsToReadWrite;
} MPSImageReadWriteParams;

typedef struct {
  NSUInteger x, y, channel;
} MPSImageCoordinate;

typedef struct {
  MPSImageCoordinate offset, size;
} MPSImageRegion;

typedef struct MPSStateTextureInfo {
  NSUInteger width, height, depth, arrayLength;
  MTLPixelFormat pixelFormat;
  MTLTextureType textureType;
  MTLTextureUsage usage;
  NSUInteger _reserved[4];
} MPSStateTextureInfo;

MTL_EXTERN const MTLRegion MPSRectNoClip;

@protocol MPSDeviceProvider
- (id<MTLDevice> _Nonnull)mpsMTLDevice;
@end

MTL_EXTERN BOOL MPSSupportsMTLDevice(id<MTLDevice> _Nullable device);
MTL_EXTERN id<MTLDevice> _Nullable MPSGetPreferredDevice(MPSDeviceOptions options);
MTL_EXTERN void MPSSetHeapCacheDuration(id<MTLCommandBuffer> _Nonnull buffer, double seconds);
MTL_EXTERN void MPSHintTemporaryMemoryHighWaterMark(id<MTLCommandBuffer> _Nonnull buffer,
                                                    NSUInteger bytes);
