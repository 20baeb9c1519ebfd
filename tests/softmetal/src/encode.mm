#include "encode.hpp"

#include <chrono>
#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "command_buffer.hpp"
#include "counters.hpp"
#include "faults.hpp"
#include "image.hpp"
#include "judge.hpp"
#include "state.hpp"

namespace softmetal {
namespace {

bool judge_operand(const Operand& operand, const Encode& e, const BufferWriter& writer) {
  if (!operand.images) {
    if (!operand.optional) broken(rules::nil_argument, "%s: %s", e.what, operand.name);
    return operand.optional;
  }
  const NSUInteger count = e.sources.front().images.count;
  if (count == 0) {
    broken(rules::empty_image, "%s: a batch of no images", e.what);
    return false;
  }
  if (operand.images.count != count) {
    broken(rules::batch_count, "%s: %lu %s for %lu images", e.what,
           (unsigned long)operand.images.count, operand.name, (unsigned long)count);
    return false;
  }
  MPSImage* first = [operand.images objectAtIndex:0];
  for (MPSImage* image in operand.images) {
    if (!same_device(e.kernel.device, image.device, operand.name)) return false;
    if (!may_use_temporary(image, writer.state().heap, operand.name)) return false;
    if (image.numberOfImages != 1) {
      broken(rules::number_of_images, "%s: %s hold %lu", e.what, operand.name,
             (unsigned long)image.numberOfImages);
      return false;
    }
    if (image.featureChannelFormat != first.featureChannelFormat) {
      broken(rules::batch_formats, "%s: %s", e.what, operand.name);
    }
  }
  return true;
}

bool judge_states(MPSStateBatch* states, const char* name, const Encode& e,
                  const BufferWriter& writer) {
  if (!states) return true;
  if (states.count != e.sources.front().images.count) {
    broken(rules::batch_count, "%s: %lu %s", e.what, (unsigned long)states.count, name);
    return false;
  }
  for (MPSState* state in states) {
    const SoftmetalState& inside = *state->_softmetal;
    if (!inside.made_by_loss) {
      broken(rules::foreign_state, "%s: %s", e.what, name);
      return false;
    }
    if (!same_device(e.kernel.device, inside.device, name)) return false;
    if (!may_use_temporary(state, writer.state().heap, name)) return false;
  }
  return true;
}

std::vector<View> views_of(MPSImageBatch* images) {
  std::vector<View> views;
  for (MPSImage* image in images) views.push_back(view_of(image, 0));
  return views;
}

/// The storage of every image, which an encode allocates; empty where that fails.
struct ImageStorage {
  std::vector<std::vector<View>> sources;
  std::vector<View> destination;
  std::vector<SoftmetalTexture*> textures;

  explicit ImageStorage(const Encode& e) {
    for (const Operand& source : e.sources) sources.push_back(views_of(source.images));
    destination = views_of(e.destination.images);
    for (const Operand& source : e.sources) keep(source.images);
    keep(e.destination.images);
  }
  bool complete() const {
    for (const auto& views : sources) {
      for (const View& view : views) {
        if (!view.texels) return false;
      }
    }
    return std::all_of(destination.begin(), destination.end(),
                       [](const View& view) { return view.texels != nullptr; });
  }

 private:
  void keep(MPSImageBatch* images) {
    for (MPSImage* image in images) textures.push_back(allocated_texture_of(image));
  }
};

bool judge_aliases(const Encode& e, const ImageStorage& storage) {
  std::map<std::pair<const Texels*, std::size_t>, std::size_t> result_in_slice;
  for (std::size_t i = 0; i < storage.destination.size(); ++i) {
    const View& result = storage.destination[i];
    for (std::size_t slice = 0; slice < result.slices(); ++slice) {
      const auto [taken, is_free] =
          result_in_slice.try_emplace({result.texels.get(), result.first_slice + slice}, i);
      if (is_free) continue;
      broken(rules::destination_repeated, "%s: results %zu and %zu", e.what, taken->second, i);
      return false;
    }
  }
  for (std::size_t s = 0; s < storage.sources.size(); ++s) {
    for (const View& source : storage.sources[s]) {
      for (std::size_t slice = 0; slice < source.slices(); ++slice) {
        const auto taken = result_in_slice.find({source.texels.get(), source.first_slice + slice});
        if (taken == result_in_slice.end()) continue;
        broken(rules::destination_aliases_source, "%s: result %zu and %s", e.what, taken->second,
               e.sources[s].name);
        return false;
      }
    }
  }
  return true;
}

Values load(const View& view, const Operand& operand) {
  const std::size_t pixels = view.width() * view.height();
  if (!operand.values_count)
    return {pixels, view.channels, std::vector<double>(pixels * view.channels)};
  if (!view.texels->written()) broken(rules::read_unwritten, "%s of a kernel", operand.name);
  if (view.texels->wrapped && !view.padding_is_finite()) {
    broken(rules::padding_not_finite, "%s of a kernel", operand.name);
  }
  return {pixels, view.channels, view.load()};
}

Command command_for(const Encode& e, const ImageStorage& storage) {
  Command command;
  for (const auto& views : storage.sources) {
    for (const View& view : views) command.accesses.push_back({view.texels, Touch::reads});
  }
  for (const View& view : storage.destination) {
    command.accesses.push_back({view.texels, Touch::writes});
  }
  std::vector<Operand> operands = e.sources;
  for (Operand& operand : operands) operand.images = nil;  // nothing of Objective-C outlives us
  command.run = [operands, sources = storage.sources, destination = storage.destination,
                 run = e.run, undefined = e.undefined] {
    std::vector<Batch> values(sources.size());
    for (std::size_t s = 0; s < sources.size(); ++s) {
      for (const View& view : sources[s]) values[s].push_back(load(view, operands[s]));
    }
    Batch results = run(values);
    for (std::size_t n = 0; n < destination.size(); ++n) {
      if (undefined) std::fill(results[n].data.begin(), results[n].data.end(), std::nan(""));
      destination[n].store(results[n].data);
      counters().slices_written += destination[n].slices();
    }
  };
  return command;
}

/// Once for every different object that the encode reads; by a fault, as often as it reads one.
void lower_read_counts(const Encode& e) {
  if (strikes(Fault::forget_read_count_decrement)) return;
  std::set<id> seen;
  const bool each_use = strikes(Fault::lower_read_count_each_use).has_value();
  for (const Operand& source : e.sources) {
    for (MPSImage* image in source.images) {
      if (seen.insert(image).second || each_use) lower_read_count(image);
    }
  }
  for (MPSState* state in e.source_states) {
    if (seen.insert(state).second) lower_read_count(state);
  }
}

void pause_in_encode() {
  std::this_thread::yield();
  if (const auto microseconds = strikes(Fault::encode_pause)) {
    std::this_thread::sleep_for(std::chrono::duration<double, std::micro>(*microseconds));
  }
}

}  // namespace

bool same_shape(MPSImage* a, MPSImage* b) {
  return a.width == b.width && a.height == b.height && a.featureChannels == b.featureChannels;
}

bool is_single_value(MPSImage* image) {
  return image.width == 1 && image.height == 1 && image.featureChannels == 1;
}

bool encode(const Encode& e) {
  BufferWriter writer(e.buffer, e.what);
  if (!writer || !same_device(e.kernel.device, writer.device(), e.what)) return false;
  if (strikes(Fault::encode_raises)) {
    [NSException raise:NSInternalInconsistencyException format:@"%s: fault of the double", e.what];
  }
  for (const Operand& source : e.sources) {
    if (!judge_operand(source, e, writer)) return false;
  }
  if (!judge_operand(e.destination, e, writer)) return false;
  if (!judge_states(e.source_states, "source states", e, writer)) return false;
  if (!judge_states(e.destination_states, "destination states", e, writer)) return false;
  if (!e.judge()) return false;
  const ImageStorage storage(e);
  if (!storage.complete()) {
    [NSException raise:NSMallocException format:@"%s: no memory for a texture", e.what];
  }
  if (!judge_aliases(e, storage)) return false;
  pause_in_encode();
  writer.append(command_for(e, storage), storage.textures);
  lower_read_counts(e);
  ++counters().encodes;
  const id buffer = e.buffer;
  if ([buffer isKindOfClass:[MPSCommandBuffer class]] && strikes(Fault::continue_during_encode))
    [(MPSCommandBuffer*)buffer commitAndContinue];
  return true;
}

}  // namespace softmetal
