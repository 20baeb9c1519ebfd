// Every rule that the double enforces: name, tag, verdict, and who says so.
//
// A rule tagged `apple` stands in a public header or page of Apple; one tagged `ours` is stricter
// than any document. Where Apple's validation asserts, a broken rule raises an exception of its
// name. Where Apple calls the outcome undefined, or nothing could be thrown, it is recorded, and
// the call goes on as badly as the hardware might.
#pragma once

namespace softmetal {

enum class Tag { apple, ours };
enum class Verdict { raises, records };

struct Rule {
  const char* name;
  Tag tag;
  Verdict verdict;
  const char* source;
};

namespace rules {
using enum Tag;
using enum Verdict;

// Command buffers.
inline constexpr Rule encode_after_commit{
    "encode_after_commit", apple, raises,
    "MTLCommandBuffer page, commit: nothing is encoded after it"};
inline constexpr Rule committed_twice{"committed_twice", apple, raises,
                                      "MTLCommandBuffer page, commit: once only"};
inline constexpr Rule wait_before_commit{
    "wait_before_commit", apple, raises,
    "MPSCommandBuffer.h, commitAndContinue: waiting on an uncommitted buffer is a deadlock"};
inline constexpr Rule wait_in_handler{"wait_in_handler", apple, raises,
                                      "MTLCommandBuffer page, waitUntilCompleted: returns after "
                                      "the handlers, so one waits for itself"};
inline constexpr Rule handler_after_commit{
    "handler_after_commit", apple, raises,
    "MTLCommandBuffer page, addCompletedHandler: and addScheduledHandler: before commit only"};
inline constexpr Rule enqueued_and_dropped{
    "enqueued_and_dropped", ours, records,
    "metal_notes.md 8: a place in the queue that nobody takes holds up all behind it"};
inline constexpr Rule written_by_two_threads{
    "written_by_two_threads", apple, records,
    "MTLCommandBuffer page: one thread at a time encodes into a buffer"};
inline constexpr Rule queue_exhausted{
    "queue_exhausted", apple, raises,
    "MTLDevice.h, newCommandQueue: 64 non-completed buffers; all uncommitted means for ever"};
inline constexpr Rule encoder_left_open{
    "encoder_left_open", apple, raises,
    "MPSKernel.h: endEncoding on other encoders first; MTLCommandBuffer page, commit"};
inline constexpr Rule encoder_used_after_end{"encoder_used_after_end", apple, raises,
                                             "MTLCommandEncoder.h, endEncoding"};
inline constexpr Rule encoder_released_open{"encoder_released_open", apple, records,
                                            "MTLCommandEncoder page: endEncoding before release"};

// Lifetimes, devices, arguments.
inline constexpr Rule used_after_release{
    "used_after_release", apple, raises,
    "Memory Management Programming Guide: no use after release"};
inline constexpr Rule resource_gone{
    "resource_gone", apple, records,
    "MTLCommandQueue.h, commandBufferWithUnretainedReferences: keeps nothing alive; "
    "MTLCommandBuffer.h, MTLCommandBufferErrorInvalidResource"};
inline constexpr Rule nil_argument{"nil_argument", apple, raises,
                                   "the argument is nonnull in the header"};
inline constexpr Rule mixed_devices{"mixed_devices", apple, raises,
                                    "MTLResource.h, device: usable with this device only"};

// Images and textures.
inline constexpr Rule image_format{
    "image_format", apple, raises,
    "MPSCoreTypes.h: MPSImageFeatureChannelFormatNone is no format to store in"};
inline constexpr Rule empty_image{"empty_image", ours, raises,
                                  "metal_notes.md 20: no empty extent or batch reaches MPS"};
inline constexpr Rule slices_over_limit{"slices_over_limit", apple, raises,
                                        "MPSImage.h, batchRepresentation: 2048 slices"};
inline constexpr Rule extent_over_limit{"extent_over_limit", apple, raises,
                                        "Metal Feature Set Tables: 16384 pixels a side"};
inline constexpr Rule texture_shape{
    "texture_shape", apple, raises,
    "MPSImage.h, initWithTexture: 2D for 4 channels or fewer, else an array of whole images"};
inline constexpr Rule region_out_of_bounds{
    "region_out_of_bounds", apple, raises,
    "MPSImage.h, readBytes and writeBytes: region, image index and channels lie in the image"};
inline constexpr Rule private_cpu_access{"private_cpu_access", apple, raises,
                                         "MTLResource.h: private storage is never seen by the CPU"};
inline constexpr Rule read_unsynchronised{"read_unsynchronised", apple, records,
                                          "MPSImage.h, synchronizeOnCommandBuffer: necessary for "
                                          "managed storage after the last GPU write"};
inline constexpr Rule access_in_flight{
    "access_in_flight", apple, records,
    "MTLTexture page, getBytes and replaceRegion: no GPU work on the texture meanwhile"};
inline constexpr Rule read_unwritten{
    "read_unwritten", ours, records,
    "metal_notes.md 16: contents of fresh storage are undocumented"};
inline constexpr Rule padding_not_finite{
    "padding_not_finite", apple, records,
    "MPSImage.h: padding channels should not contain NaNs or Infs (wrapped textures)"};

// Temporary images and states.
inline constexpr Rule temporary_cpu_access{"temporary_cpu_access", apple, raises,
                                           "MPSImage.h: temporary images are for the GPU only"};
inline constexpr Rule temporary_on_other_buffer{"temporary_on_other_buffer", apple, raises,
                                                "MPSImage.h: a temporary has one command buffer"};
inline constexpr Rule read_count_zero{"read_count_zero", apple, raises,
                                      "MPSImage.h, readCount: no reading or writing at zero"};
inline constexpr Rule read_count_changed_at_zero{
    "read_count_changed_at_zero", apple, raises,
    "MPSImage.h and MPSState.h, readCount: an error to change it once it is zero"};
inline constexpr Rule read_count_left_over{
    "read_count_left_over", apple, records,
    "MPSImage.h and MPSState.h, readCount: validation asserts at the dealloc of a non-zero count"};

// Kernels and their encodes.
inline constexpr Rule kernel_changed_during_encode{
    "kernel_changed_during_encode", apple, records,
    "MPSKernel.h: no other thread changes a kernel meanwhile"};
inline constexpr Rule wrong_encode{
    "wrong_encode", ours, raises, "api_surface.md 2.1: inherited encodes of a loss take no labels"};
inline constexpr Rule batch_count{"batch_count", ours, raises,
                                  "MPSCNNLoss.h: batches of one encode go image by image"};
inline constexpr Rule number_of_images{
    "number_of_images", apple, raises,
    "MPSCNNKernel.h: all images in a batch must have numberOfImages 1"};
inline constexpr Rule batch_formats{
    "batch_formats", apple, records,
    "MPSImage.h, MPSImageBatchIncrementReadCount: one batch, one descriptor"};
inline constexpr Rule operand_shape{
    "operand_shape", ours, raises,
    "api_surface.md 6.2: labels as predictions, source gradients as the loss image"};
inline constexpr Rule weights_shape{"weights_shape", ours, records,
                                    "api_surface.md 6.2: broadcasting of weights is undocumented"};
inline constexpr Rule destination_shape{
    "destination_shape", apple, raises,
    "MPSCNNLoss.h: a loss image is as its source or 1x1x1; a gradient is as its source"};
inline constexpr Rule destination_aliases_source{
    "destination_aliases_source", apple, raises,
    "MPSCNNKernel.h: a destination may not alias a source, even at another index"};
inline constexpr Rule destination_repeated{"destination_repeated", ours, raises,
                                           "two results in one image"};
inline constexpr Rule geometry_not_default{
    "geometry_not_default", apple, records,
    "MPSCNNLoss.h, MPSNNForwardLoss: other offsets or clipRects give undefined results"};
inline constexpr Rule sizing_not_default{
    "sizing_not_default", ours, records,
    "semantics.md 8: inherited channel offsets, edge modes and strides are undefined here"};
inline constexpr Rule cosine_reduction{"cosine_reduction", apple, raises,
                                       "MPSCNNLoss.h: cosine distance knows only the sum"};
inline constexpr Rule cosine_weights{"cosine_weights", ours, records,
                                     "semantics.md 4: weights of a cosine distance are per pixel"};
inline constexpr Rule foreign_state{
    "foreign_state", apple, raises,
    "MPSNNGradientState.h: made by the forward kernel's resultState methods only"};
inline constexpr Rule state_not_filled{"state_not_filled", ours, raises,
                                       "semantics.md 6: a state that no forward encode has filled"};
inline constexpr Rule state_properties_changed{
    "state_properties_changed", apple, records,
    "MPSCNNKernel.h, resultStateForSourceImage: all properties final before it, else undefined"};
inline constexpr Rule state_and_kernel_disagree{
    "state_and_kernel_disagree", ours, records,
    "metal_notes.md 22: whether state or property wins is undocumented, so they agree"};
inline constexpr Rule states_disagree{
    "states_disagree", ours, records,
    "metal_notes.md 22: unequal states in one batch are undocumented"};

inline constexpr const Rule* all[] = {&encode_after_commit,
                                      &committed_twice,
                                      &wait_before_commit,
                                      &wait_in_handler,
                                      &handler_after_commit,
                                      &enqueued_and_dropped,
                                      &written_by_two_threads,
                                      &queue_exhausted,
                                      &encoder_left_open,
                                      &encoder_used_after_end,
                                      &encoder_released_open,
                                      &used_after_release,
                                      &resource_gone,
                                      &nil_argument,
                                      &mixed_devices,
                                      &image_format,
                                      &empty_image,
                                      &slices_over_limit,
                                      &extent_over_limit,
                                      &texture_shape,
                                      &region_out_of_bounds,
                                      &private_cpu_access,
                                      &read_unsynchronised,
                                      &access_in_flight,
                                      &read_unwritten,
                                      &padding_not_finite,
                                      &temporary_cpu_access,
                                      &temporary_on_other_buffer,
                                      &read_count_zero,
                                      &read_count_changed_at_zero,
                                      &read_count_left_over,
                                      &kernel_changed_during_encode,
                                      &wrong_encode,
                                      &batch_count,
                                      &number_of_images,
                                      &batch_formats,
                                      &operand_shape,
                                      &weights_shape,
                                      &destination_shape,
                                      &destination_aliases_source,
                                      &destination_repeated,
                                      &geometry_not_default,
                                      &sizing_not_default,
                                      &cosine_reduction,
                                      &cosine_weights,
                                      &foreign_state,
                                      &state_not_filled,
                                      &state_properties_changed,
                                      &state_and_kernel_disagree,
                                      &states_disagree};
}  // namespace rules
}  // namespace softmetal
