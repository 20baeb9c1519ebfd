#include "loss.hpp"

#include "faults.hpp"
#include "judge.hpp"

namespace softmetal {
namespace {

/// One channel, one pixel or one value where the other has more.
bool broadcasts_to(MPSImage* weights, MPSImage* image) {
  const auto fits = [](NSUInteger axis, NSUInteger other) { return axis == other || axis == 1; };
  const bool pixels = (weights.width == image.width && weights.height == image.height) ||
                      (weights.width == 1 && weights.height == 1);
  return pixels && fits(weights.featureChannels, image.featureChannels);
}

}  // namespace

bool may_make_loss(MPSCNNLossDescriptor* descriptor) {
  if (!descriptor) {
    broken(rules::nil_argument, "initWithDevice:lossDescriptor: descriptor");
    return false;
  }
  if (descriptor.lossType == MPSCNNLossTypeCosineDistance &&
      descriptor.reductionType != MPSCNNReductionTypeSum) {
    broken(rules::cosine_reduction, "reduction %d", descriptor.reductionType);
    return false;
  }
  return true;
}

bool judge_labels_and_weights(MPSImageBatch* predictions, MPSImageBatch* labels,
                              MPSImageBatch* weights) {
  for (NSUInteger i = 0; i < predictions.count; ++i) {
    MPSImage* image = [predictions objectAtIndex:i];
    if (!same_shape([labels objectAtIndex:i], image)) {
      broken(rules::operand_shape, "labels %lu", (unsigned long)i);
      return false;
    }
    MPSImage* weight = [weights objectAtIndex:i];
    if (!weights || same_shape(weight, image)) continue;
    if (!broadcasts_to(weight, image)) {
      broken(rules::operand_shape, "weights %lu", (unsigned long)i);
      return false;
    }
    broken(rules::weights_shape, "weights %lu of %lu x %lu x %lu", (unsigned long)i,
           (unsigned long)weight.width, (unsigned long)weight.height,
           (unsigned long)weight.featureChannels);
  }
  return true;
}

void judge_cosine_weights(const LossShape& shape, const Batch& weights) {
  if (shape.type != MPSCNNLossTypeCosineDistance) return;
  for (const Values& image : weights) {
    for (std::size_t i = 0; i < image.data.size(); ++i) {
      if (image.data[i] == image.data[i - i % image.channels]) continue;
      return broken(rules::cosine_weights, "channel %zu differs from channel 0",
                    i % image.channels);
    }
  }
}

Problem problem_for(const LossShape& shape, const std::vector<LossParameters>& parameters) {
  Problem problem{static_cast<Loss>(shape.type),
                  static_cast<Reduction>(shape.reduction),
                  shape.across_batch != NO,
                  {}};
  for (const LossParameters& p : parameters) {
    problem.parameters.push_back(
        {p.weight, p.label_smoothing, static_cast<double>(shape.classes), p.epsilon, p.delta});
  }
  return problem;
}

}  // namespace softmetal

@implementation MPSCNNLossDescriptor
@synthesize lossType = _lossType;
@synthesize reductionType = _reductionType;
@synthesize reduceAcrossBatch = _reduceAcrossBatch;
@synthesize weight = _weight;
@synthesize labelSmoothing = _labelSmoothing;
@synthesize numberOfClasses = _numberOfClasses;
@synthesize epsilon = _epsilon;
@synthesize delta = _delta;

+ (MPSCNNLossDescriptor*)cnnLossDescriptorWithType:(MPSCNNLossType)lossType
                                     reductionType:(MPSCNNReductionType)reductionType {
  if (softmetal::strikes(softmetal::Fault::descriptor_is_nil)) return nil;
  MPSCNNLossDescriptor* made = [[self allocWithZone:NSDefaultMallocZone()] softmetalInit];
  made->_lossType = lossType;
  made->_reductionType = reductionType;
  return [made autorelease];
}

- (instancetype)softmetalInit {
  if (!(self = [super init])) return nil;
  _weight = 1;
  _numberOfClasses = 1;
  _epsilon = 1e-7f;
  _delta = 1;
  return self;
}

- (id)copyWithZone:(NSZone*)zone {
  MPSCNNLossDescriptor* copy = [[[self class] allocWithZone:zone] softmetalInit];
  copy->_lossType = _lossType;
  copy->_reductionType = _reductionType;
  copy->_reduceAcrossBatch = _reduceAcrossBatch;
  copy->_weight = _weight;
  copy->_labelSmoothing = _labelSmoothing;
  copy->_numberOfClasses = _numberOfClasses;
  copy->_epsilon = _epsilon;
  copy->_delta = _delta;
  return copy;
}

@end
