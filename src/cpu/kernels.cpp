// Every loop for one instruction set: CMake compiles this file once for each, with MPSNN_ISA its
// name.
#include <utility>

#include "core/loss_type.hpp"
#include "cpu/element_loop.hpp"
#include "cpu/plan.hpp"
#include "cpu/softmax_loop.hpp"

#define MPSNN_STRING_OF(name) #name
#define MPSNN_STRING(name) MPSNN_STRING_OF(name)

#if defined(__AVX512F__)
namespace mpsnn_loss::cpu::x86_64_v3 {
extern const KernelSet kernel_set;
}
#endif

namespace mpsnn_loss::cpu::MPSNN_ISA {
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
template <class T, std::size_t... I>
constexpr ChunkFunction chunk_function(LossType type, std::integer_sequence<std::size_t, I...>) {
  constexpr ChunkFunction functions[] = {run_loss<kLosses[I].type, T>...};
  return functions[row_of(type)];
}

void run_chunk(const Plan& plan, std::int64_t chunk, std::byte* scratch) {
#if defined(__AVX512F__)
  // Shorter vectors leave fewer lanes idle at the end of a row.
  if (layout_of(plan) != RowLayout::long_row)
    return x86_64_v3::kernel_set.run_chunk(plan, chunk, scratch);
#endif
  constexpr auto losses = std::make_integer_sequence<std::size_t, kLosses.size()>();
  const ChunkFunction function = plan.double_precision
                                     ? chunk_function<double>(plan.loss_type, losses)
                                     : chunk_function<float>(plan.loss_type, losses);
  function(plan, chunk, scratch);
}

/// The most that any loop needs; with shorter vectors it is less.
template <class T>
constexpr std::size_t scratch_bytes() {
  using enum RowLayout;
  std::size_t most = 0;
  for (const std::size_t bytes :
       {sizeof(ElementScratch<T>), sizeof(SoftmaxScratch<T, long_row>),
        sizeof(SoftmaxScratch<T, short_rows>), sizeof(SoftmaxScratch<T, planes>)}) {
    if (bytes > most) most = bytes;
  }
  return most;
}
constexpr std::size_t kOfFloat = scratch_bytes<float>(), kOfDouble = scratch_bytes<double>();

}  // namespace

extern const KernelSet kernel_set;
const KernelSet kernel_set{MPSNN_STRING(MPSNN_ISA),
                           std::int64_t{kOfFloat > kOfDouble ? kOfFloat : kOfDouble}, run_chunk};

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
