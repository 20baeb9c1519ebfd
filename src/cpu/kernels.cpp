// Every loop for one instruction set: CMake compiles this file once for each, with MPSNN_ISA its
// name.
#include <array>
#include <utility>

#include "core/loss_type.hpp"
#include "cpu/element_loop.hpp"
#include "cpu/plan.hpp"
#include "cpu/softmax.hpp"

#define MPSNN_STRING_OF(name) #name
#define MPSNN_STRING(name) MPSNN_STRING_OF(name)

namespace mpsnn_loss::cpu::MPSNN_ISA {

extern const KernelSet kernel_set;

namespace {

template <LossType type, class T>
void run_loss(const Plan& plan, std::int64_t chunk, std::byte* scratch) {
  if constexpr (info(type).couples_channels) {
    run_softmax_chunk<T>(plan, chunk, scratch);
  } else {
    run_element_chunk<Formula<type>, T>(plan, chunk, scratch);
  }
}

using ChunkFunction = void (*)(const Plan&, std::int64_t, std::byte*);

/// One entry per row of the table of losses; a loss without a formula does not compile.
template <class T>
constexpr auto kChunkFunctions = []<std::size_t... I>(std::index_sequence<I...>) {
  return std::array<ChunkFunction, sizeof...(I)>{run_loss<kLosses[I].type, T>...};
}(std::make_index_sequence<kLosses.size()>());

/// The plan for one chunk whose predictions were copied to `room`, as results take their place.
template <class T>
Plan with_copy(const Plan& plan, std::int64_t chunk, std::byte* room) {
  const Range units = chunk_range(plan, chunk);
  const std::int64_t first = units.first * plan.unit_elements;
  auto* const copy = reinterpret_cast<T*>(room);
  const std::int64_t count = units.last * plan.unit_elements - first;
  if (plan.predictions.dense) {
    convert_in(plan.predictions.data, plan.predictions.format, first, count, copy);
  } else {
    gather(plan.predictions, plan.shape, first, count, copy);
  }
  Plan own = plan;
  own.results_in_place = false;
  for (Sink* sink : {&own.gradient, &own.hessian, &own.loss}) sink->overwrites = false;
  own.predictions = {.data = room - first * std::int64_t{sizeof(T)},
                     .format = kFormatOf<T>,
                     .strides = contiguous_strides(plan.shape),
                     .dense = true,
                     .one_per_pixel = plan.shape.channels == 1};
  return own;
}

void run_chunk(const Plan& plan, std::int64_t chunk, std::byte* scratch) {
  if (copies_predictions(plan)) {
    std::byte* const room = scratch + kernel_set.scratch_bytes(plan);
    return run_chunk(plan.double_precision ? with_copy<double>(plan, chunk, room)
                                           : with_copy<float>(plan, chunk, room),
                     chunk, scratch);
  }
  const std::size_t row = row_of(plan.loss_type);
  const ChunkFunction function =
      plan.double_precision ? kChunkFunctions<double>[row] : kChunkFunctions<float>[row];
  function(plan, chunk, scratch);
}

std::int64_t scratch_bytes(const Plan& plan) {
  const auto bytes_of = [&]<class T>(T) {
    const bool softmax = info(plan.loss_type).couples_channels;
    return softmax ? softmax_scratch<T>(plan) : std::int64_t{sizeof(ElementScratch<T>)};
  };
  const std::int64_t bytes = plan.double_precision ? bytes_of(double()) : bytes_of(float());
  return (bytes + 63) / 64 * 64;  // what comes behind it is aligned too
}

}  // namespace

const KernelSet kernel_set{MPSNN_STRING(MPSNN_ISA), scratch_bytes, run_chunk};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
