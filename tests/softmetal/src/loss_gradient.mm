#include "judge.hpp"
#include "loss.hpp"

using namespace softmetal;

@implementation MPSNNLossGradient

- (instancetype)initWithDevice:(id<MTLDevice>)device
                lossDescriptor:(MPSCNNLossDescriptor*)descriptor {
  Unfinished guard(self);
  if (!may_make_loss(descriptor)) return nil;
  guard.finished();
  if (!(self = [super initWithDevice:device])) return nil;
  _lossType = descriptor.lossType;
  _reductionType = descriptor.reductionType;
  _reduceAcrossBatch = descriptor.reduceAcrossBatch;
  _numberOfClasses = descriptor.numberOfClasses;
  _weight = descriptor.weight;
  _labelSmoothing = descriptor.labelSmoothing;
  _epsilon = descriptor.epsilon;
  _delta = descriptor.delta;
  return self;
}

- (void)softmetalForget {
  [super softmetalForget];
  _weight = _delta = 1;
  _labelSmoothing = 0;
  _epsilon = 1e-7f;
  _computeLabelGradients = NO;
}

- (void)softmetalTakeFrom:(MPSKernel*)kernel {
  [super softmetalTakeFrom:kernel];
  MPSNNLossGradient* other = (MPSNNLossGradient*)kernel;
  _lossType = other->_lossType;
  _reductionType = other->_reductionType;
  _reduceAcrossBatch = other->_reduceAcrossBatch;
  _numberOfClasses = other->_numberOfClasses;
  _weight = other->_weight;
  _labelSmoothing = other->_labelSmoothing;
  _epsilon = other->_epsilon;
  _delta = other->_delta;
  _computeLabelGradients = other->_computeLabelGradients;
}

- (void)encodeWithCoder:(NSCoder*)coder {
  [super encodeWithCoder:coder];
  const LossShape shape = [self softmetalShape];
  const LossParameters parameters = [self softmetalParameters];
  [coder encodeObject:archived(&shape, sizeof shape) forKey:@"MPSNNLossGradient.shape"];
  [coder encodeObject:archived(&parameters, sizeof parameters)
               forKey:@"MPSNNLossGradient.parameters"];
  [coder encodeBool:_computeLabelGradients forKey:@"MPSNNLossGradient.computeLabelGradients"];
}

- (instancetype)initWithCoder:(NSCoder*)coder device:(id<MTLDevice>)device {
  if (!(self = [super initWithCoder:coder device:device])) return nil;
  LossShape shape;
  LossParameters p;
  if (!unarchive(coder, @"MPSNNLossGradient.shape", &shape, sizeof shape) ||
      !unarchive(coder, @"MPSNNLossGradient.parameters", &p, sizeof p)) {
    [self release];
    return nil;
  }
  _lossType = shape.type;
  _reductionType = shape.reduction;
  _reduceAcrossBatch = shape.across_batch;
  _numberOfClasses = shape.classes;
  _weight = p.weight;
  _labelSmoothing = p.label_smoothing;
  _epsilon = p.epsilon;
  _delta = p.delta;
  _computeLabelGradients = [coder decodeBoolForKey:@"MPSNNLossGradient.computeLabelGradients"];
  return self;
}

- (MPSCNNLossType)lossType {
  return _lossType;
}
- (MPSCNNReductionType)reductionType {
  return _reductionType;
}
- (BOOL)reduceAcrossBatch {
  return _reduceAcrossBatch;
}
- (NSUInteger)numberOfClasses {
  return _numberOfClasses;
}
- (float)weight {
  return get(self, _weight);
}
- (void)setWeight:(float)value {
  set(self, _weight, value);
}
- (float)labelSmoothing {
  return get(self, _labelSmoothing);
}
- (void)setLabelSmoothing:(float)value {
  set(self, _labelSmoothing, value);
}
- (float)epsilon {
  return get(self, _epsilon);
}
- (void)setEpsilon:(float)value {
  set(self, _epsilon, value);
}
- (float)delta {
  return get(self, _delta);
}
- (void)setDelta:(float)value {
  set(self, _delta, value);
}
- (BOOL)computeLabelGradients {
  return get(self, _computeLabelGradients);
}
- (void)setComputeLabelGradients:(BOOL)value {
  set(self, _computeLabelGradients, value);
}

- (LossShape)softmetalShape {
  return {_lossType, _reductionType, _reduceAcrossBatch, _numberOfClasses};
}

- (LossParameters)softmetalParameters {
  return {_weight, _labelSmoothing, _epsilon, _delta};
}

/// A result is as its predictions, or labels, which have the same size: sources[1].
- (MPSImageDescriptor*)softmetalResultFor:(NSArray<MPSImage*>*)sources {
  return suggestion_for([sources objectAtIndex:sources.count > 1 ? 1 : 0], false);
}

/// The values of the states where there are any, else of the kernel; one for each image.
- (std::vector<LossParameters>)softmetalParametersFor:(NSUInteger)count
                                               states:(MPSStateBatch*)states {
  std::vector<LossParameters> values;
  for (NSUInteger i = 0; i < count; ++i) {
    MPSState* state = i < states.count ? [states objectAtIndex:i] : nil;
    values.push_back(state ? state->_softmetal->values : [self softmetalParameters]);
  }
  return values;
}

- (BOOL)softmetalJudgeStates:(MPSStateBatch*)states {
  for (MPSState* state in states) {
    const SoftmetalState& inside = *state->_softmetal;
    const SoftmetalState& first = *((MPSState*)[states objectAtIndex:0])->_softmetal;
    if (!inside.filled) {
      broken(rules::state_not_filled, "MPSNNLossGradient");
      return NO;
    }
    if (inside.values != first.values) {
      broken(rules::states_disagree, "MPSNNLossGradient");
      break;
    }
    if (inside.values == [self softmetalParameters]) continue;
    broken(rules::state_and_kernel_disagree, "MPSNNLossGradient");
    break;
  }
  return YES;
}

- (BOOL)softmetalJudge:(MPSImageBatch*)gradients
           predictions:(MPSImageBatch*)predictions
          destinations:(MPSImageBatch*)destinations {
  for (NSUInteger i = 0; i < predictions.count; ++i) {
    MPSImage* image = [predictions objectAtIndex:i];
    MPSImage* gradient = [gradients objectAtIndex:i];
    MPSImage* result = [destinations objectAtIndex:i];
    if (!is_single_value(gradient) && !same_shape(gradient, image)) {
      broken(rules::operand_shape, "source gradient %lu", (unsigned long)i);
      return NO;
    }
    if (!same_shape(result, image)) {
      broken(rules::destination_shape, "a gradient of %lu x %lu x %lu", (unsigned long)result.width,
             (unsigned long)result.height, (unsigned long)result.featureChannels);
      return NO;
    }
  }
  return YES;
}

- (void)softmetalEncode:(MPSImageBatch*)gradients
            predictions:(MPSImageBatch*)predictions
                 labels:(MPSImageBatch*)labels
                weights:(MPSImageBatch*)weights
                 states:(MPSStateBatch*)states
           destinations:(MPSImageBatch*)destinations
                 buffer:(id<MTLCommandBuffer>)buffer {
  const LossShape shape = [self softmetalShape];
  const auto parameters = [self softmetalParametersFor:predictions.count states:states];
  const Problem problem = problem_for(shape, parameters);
  const bool for_labels = _computeLabelGradients;
  encode({
      .what = "MPSNNLossGradient",
      .kernel = self,
      .buffer = buffer,
      .sources = {{"source images", predictions},
                  {"source gradients", gradients},
                  {"labels", labels},
                  {"weights", weights, true}},
      .destination = {"destination gradients", destinations},
      .source_states = states,
      .judge =
          [&] {
            return judge_labels_and_weights(predictions, labels, weights) &&
                   [self softmetalJudge:gradients
                            predictions:predictions
                           destinations:destinations] &&
                   [self softmetalJudgeStates:states];
          },
      .run =
          [problem, shape, for_labels](const std::vector<Batch>& values) {
            judge_cosine_weights(shape, values[3]);
            return loss_gradient(problem, for_labels, values[1], values[0], values[2], values[3]);
          },
      .undefined = ![self softmetalHasDefaultGeometry],
  });
}

- (void)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                   sourceGradients:(MPSImageBatch*)sourceGradients
                      sourceImages:(MPSImageBatch*)sourceImages
                            labels:(MPSImageBatch*)labels
                           weights:(MPSImageBatch*)weights
                      sourceStates:(MPSStateBatch*)sourceStates
              destinationGradients:(MPSImageBatch*)destinationGradients {
  KernelWindow window(self, KernelWindow::read, "encoding");
  [self softmetalEncode:sourceGradients
            predictions:sourceImages
                 labels:labels
                weights:weights
                 states:sourceStates
           destinations:destinationGradients
                 buffer:commandBuffer];
}

- (MPSImageBatch*)encodeBatchToCommandBuffer:(id<MTLCommandBuffer>)commandBuffer
                             sourceGradients:(MPSImageBatch*)sourceGradients
                                sourceImages:(MPSImageBatch*)sourceImages
                                      labels:(MPSImageBatch*)labels
                                     weights:(MPSImageBatch*)weights
                                sourceStates:(MPSStateBatch*)sourceStates {
  if (sourceImages.count == 0 || sourceGradients.count == 0 || !commandBuffer) {
    broken(rules::nil_argument, "encode: source images, source gradients or command buffer");
    return nil;
  }
  KernelWindow window(self, KernelWindow::change, "encoding with a result of its own");
  self.primaryOffset = self.secondaryOffset = {0, 0, 0};  // the policy's choice
  NSArray* sources = @[ [sourceGradients objectAtIndex:0], [sourceImages objectAtIndex:0] ];
  NSArray* states = sourceStates.count ? @[ [sourceStates objectAtIndex:0] ] : nil;
  MPSImageDescriptor* descriptor =
      sized_result(self, self.padding, sources, states, [self softmetalResultFor:sources]);
  MPSImageBatch* results = allocate_results(self, self.destinationImageAllocator, commandBuffer,
                                            descriptor, sourceImages.count);
  [self softmetalEncode:sourceGradients
            predictions:sourceImages
                 labels:labels
                weights:weights
                 states:sourceStates
           destinations:results
                 buffer:commandBuffer];
  self.primaryOffset = self.secondaryOffset = disturbed_offset;
  return results;
}

@end
