// The loop of softmax cross entropy, whose channels are coupled: a row of C channels per pixel.
//
//   e_c = exp(y_c - max y), S = Σ e_c        -lp_c = log S + (max y - y_c), both parts >= 0
//   a_c = g_c ω v_c t'_c / D                 dL/dy_j = e_j (Σ a_c / S) - a_j (softmax_dominant.hpp)
//                                            dL/dt_c = g_c ω v_c (1 - s) (-lp_c) / D
//
// One algorithm for long rows and groups of short ones (softmax_operands.hpp).
#pragma once

#include <new>
#include <type_traits>

#include "cpu/formulas.hpp"
#include "cpu/math.hpp"
#include "cpu/plan.hpp"
#include "cpu/softmax_dominant.hpp"
#include "cpu/staging.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// A long row, or some short ones. Factors: weights or source gradients differ from channel to
/// channel.
template <class T, RowLayout layout, bool Factors>
class SoftmaxRows : SoftmaxDominant<T, layout, Factors> {
  using Base = SoftmaxDominant<T, layout, Factors>;
  using Base::by_class_, Base::channels_, Base::cross_, Base::first_, Base::label_sum_,
      Base::log_sum_, Base::maximum_, Base::pixel_, Base::plan_, Base::pulls_, Base::ratio_,
      Base::reduces_, Base::row_scratch_, Base::room_, Base::row_weight_, Base::rows_, Base::scale_,
      Base::weighted_, Base::writes_values_;
  using Base::class_of, Base::place_of_exponentials, Base::fold_rows, Base::for_each_group,
      Base::smoothing, Base::strand_elements, Base::strands, Base::walk;
  using Base::kLong, Base::kMostRows, Base::kPlanes, Base::kWidth;
  using typename Base::Operands, typename Base::PerRow, typename Base::Smoothing,
      typename Base::Tiles, typename Base::V;

 public:
  using Base::most_rows;

  using WideRoom = SoftmaxRoom<double, RowLayout::long_row>;

  /// `row_scratch`: room for the exponentials of a long row; `wide_room`: for a loop in float64
  /// that looks again at what float32 computed.
  SoftmaxRows(const Plan& plan, typename Base::Room& room, std::byte* row_scratch,
              WideRoom& wide_room)
      : Base(plan, room, row_scratch),
        wide_room_(wide_room),
        loss_writer_(plan.loss, room.losses_out),
        gradient_writer_(plan.gradient, room.gradients_out) {}

  /// Writes the outputs of `rows` rows; returns the sum of their losses where those are reduced to
  /// one.
  double run(std::int64_t pixel, std::int64_t rows) {
    this->read(pixel, rows);
    if (kLong && row_weight_[0] == T(0)) return write_zeros(), 0;
    this->find_maximum();
    this->sum_up();
    losses_.finite = gradients_.finite = true;
    if (reduces_) find_losses();
    if (writes_values_) write_surprises();
    if constexpr (kLong) {
      if (pulls_) this->find_in_long_row();
    }
    if (pulls_) write_gradient();
    return finish();
  }

  /// Writes what still waits for the rest of its line.
  void flush() {
    loss_writer_.flush();
    gradient_writer_.flush();
  }

 private:
  /// Values of the rows, of which some may have left the range of T.
  struct Checked {
    PerRow values;
    bool finite = true;
  };

  /// Calls write(strand, first element, count, operands, out) for each tile of the rows, which
  /// leaves results in `out` and returns their sums, and hands them over. The results of rows that
  /// weigh nothing are 0. `sums` gets the sum of each row if any is not finite.
  template <class Write>
  MPSNN_INLINE_MEMBER void write_rows(TileWriter<T>& writer, Checked& sums, Write write) {
    const std::int64_t elements = strand_elements(), end = rows_ * channels_, first = first_;
    T* const rows_out = kLong ? nullptr : writer.room(first);
    T* const all_out = kPlanes ? room_.gradients.elements : rows_out;
    const Tiles tiles(*this, true);
    V strand_sums[static_cast<std::size_t>(kPlanes ? kMostRows / kWidth : kMostRows)], all{};
    for (std::int64_t s = 0; s < strands(); ++s) {
      V sum{};
      tiles.for_each(
          s, [&](std::int64_t c, std::int64_t count, const Operands& in) MPSNN_INLINE_LAMBDA {
            T* const out = kLong ? writer.room(first + c) : all_out + s * elements;
            sum += write(s, c, count, in, out);
            if (weighted_ && any<V>(row_weight_.in_lanes(s) == V{}))
              sum = clear(s, count, out, sum);
            if constexpr (kLong) writer.advance(count);
          });
      strand_sums[s] = sum;
      all += sum;
    }
    if constexpr (kPlanes) from_planes(all_out, end, channels_, rows_out);
    if constexpr (!kLong) writer.advance(end);
    sums.finite = is_finite(all);
    if (!sums.finite) fold_rows(sums.values, Add(), [&](std::int64_t s) { return strand_sums[s]; });
  }

  /// Clears the results of rows that weigh nothing; returns what is left of the sums.
  V clear(std::int64_t strand, std::int64_t count, T* out, V sum) {
    const Mask<V> which = row_weight_.in_lanes(strand) == V{};
    walk(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V>) MPSNN_INLINE_LAMBDA {
      store_at(out + i, select<V>(which, V{}, load_at(out + i)));
    });
    return select<V>(which, V{}, sum);
  }

  /// Writes value(index, load) for each vector of a strand's tile; returns the sum of them. What a
  /// row leaves beyond its end is overwritten by those that follow.
  template <class Value>
  MPSNN_INLINE_MEMBER V write_tile(std::int64_t strand, std::int64_t count, T* out, Value value) {
    V sum{};
    walk(
        count,
        [&](std::int64_t i, auto load_at, auto store_at, Mask<V>) MPSNN_INLINE_LAMBDA {
          const V x = value(i, load_at);
          store_at(out + i, x);
          sum += x;
        },
        0, layout == RowLayout::short_rows && (rows_ - strand - 1) * channels_ >= kWidth);
    return sum;
  }

  /// Losses that are not reduced, and label gradients: both are products with -lp.
  void write_surprises() {
    const auto surprise = [&](std::int64_t r, V y) MPSNN_INLINE_LAMBDA {
      return log_sum_.in_lanes(r) + (maximum_.in_lanes(r) - y);  // -lp
    };
    const Smoothing smooth = smoothing();
    if (plan_.want_loss && plan_.loss.data != nullptr) {
      const T scale = static_cast<T>(plan_.loss_scale);
      write_rows(loss_writer_, losses_,
                 [&](std::int64_t r, std::int64_t, std::int64_t count, const Operands& in, T* out) {
                   const V row_scale = row_weight_.in_lanes(r) * scale;
                   return write_tile(
                       r, count, out, [&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
                         const V minus_lp = surprise(r, load_at(in.y + i));
                         const V u = label_product(smooth(load_at(in.t + i)), minus_lp);
                         // v ω first, as where v is one value per row.
                         if (!Factors || in.v == nullptr) return u * row_scale;
                         const V v = load_at(in.v + i);
                         return select<V>(v == V{}, V{}, u * (v * row_scale));
                       });
                 });
    }
    if (plan_.want_gradient && plan_.by_labels) {
      write_rows(gradient_writer_, gradients_,
                 [&](std::int64_t r, std::int64_t, std::int64_t count, const Operands& in, T* out) {
                   const V row_scale = scale_.in_lanes(r) * smooth.scale;
                   return write_tile(r, count, out,
                                     [&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
                                       const V u = surprise(r, load_at(in.y + i)) * row_scale;
                                       return this->with_factors(u, in, i, load_at);
                                     });
                 });
    }
  }

  void write_gradient() {
    const Smoothing smooth = smoothing();
    PerRow of_sum, of_label, of_row;  // what exponentials, labels and nothing are multiplied with
    PerRow limits;                    // of exponentials that are not dominant
    const V infinity = broadcast<V>(__builtin_inff());
    for_each_group([&](std::int64_t g) MPSNN_INLINE_LAMBDA {
      const V scale = scale_.group(g);
      of_sum.set_group(g, ratio_.group(g) * scale);
      of_label.set_group(g, -(smooth.scale * scale));
      of_row.set_group(g, -(smooth.offset * scale));
      if constexpr (!kLong) limits.set_group(g, this->threshold(g));
    });
    const std::int64_t elements = strand_elements();
    const T* const kept = place_of_exponentials();
    PerRow hot;  // of each row's class, before its exponential is overwritten
    if (by_class_) {
      for_each_group([&](std::int64_t g) {
        T e[lanes<V>] = {};
        for (std::int64_t r = g * kWidth; r < rows_ && r < (g + 1) * kWidth; ++r) {
          const std::int64_t index = class_of(r);
          e[r - g * kWidth] = kept[r * elements + (index < 0 ? 0 : index)];
        }
        const V minus_a = of_label.group(g) + of_row.group(g);
        hot.set_group(g, mul_add(load<V>(e), of_sum.group(g), minus_a));
      });
    }
    write_rows(gradient_writer_, gradients_,
               [&](std::int64_t r, std::int64_t c, std::int64_t count, const Operands& in,
                   T* out) MPSNN_INLINE_LAMBDA {
                 const T* const e = kept + (kLong ? c : r * elements);
                 const V by_e = of_sum.in_lanes(r), by_t = of_label.in_lanes(r),
                         rest = of_row.in_lanes(r);
                 const std::int64_t hot_class = by_class_ ? class_of(r) - c : -1;
                 const auto write_with = [&](auto minus_a) MPSNN_INLINE_LAMBDA {
                   const auto pull = [&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
                     return mul_add(load_at(e + i), by_e, minus_a(i, load_at));
                   };
                   if constexpr (kPlanes) {
                     const auto whole = [&](std::int64_t i) MPSNN_INLINE_LAMBDA {
                       return pull(i, [](const T* at) { return load<V>(at); });
                     };
                     const V limit = limits.group(r);
                     if (channels_ == 1)
                       return this->template write_few_planes<1>(e, out, limit, whole);
                     if (channels_ == 2)
                       return this->template write_few_planes<2>(e, out, limit, whole);
                     if (channels_ == 3)
                       return this->template write_few_planes<3>(e, out, limit, whole);
                     if (channels_ == 4)
                       return this->template write_few_planes<4>(e, out, limit, whole);
                   }
                   const V sum = write_tile(r, count, out, pull);
                   if (hot_class >= 0 && hot_class < count) out[hot_class] = hot[r];
                   if constexpr (kLong) {
                     this->put_in_long_row(c, count, out);
                   } else if constexpr (kPlanes) {
                     const V limit = limits.group(r);
                     if (any<V>(limit < infinity)) this->put_in_planes(count, e, out, limit);
                   } else if (limits[r] < infinity[0]) {
                     this->put_in_row(count, e, out, limits[r]);
                   }
                   return sum;
                 };
                 if constexpr (Factors) {
                   const V scale = scale_.in_lanes(r);
                   return write_with([&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
                     return -this->with_factors(smooth(load_at(in.t + i)) * scale, in, i, load_at);
                   });
                 } else if (by_class_) {
                   return write_with([&](std::int64_t, auto) MPSNN_INLINE_LAMBDA { return rest; });
                 } else {
                   return write_with([&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
                     return mul_add(load_at(in.t + i), by_t, rest);
                   });
                 }
               });
  }

  void write_zeros() {
    const auto write = [&](TileWriter<T>& writer) {
      for (std::int64_t c = 0; c < channels_; c += kTileElements) {
        const std::int64_t rest = channels_ - c,
                           count = rest < kTileElements ? rest : kTileElements;
        T* const out = writer.room(first_ + c);
        for (std::int64_t i = 0; i < count; ++i) out[i] = T(0);
        writer.advance(count);
      }
    };
    if (plan_.want_gradient) write(gradient_writer_);
    if (plan_.want_loss && plan_.loss.data != nullptr) write(loss_writer_);
  }

  /// The reduced losses of the rows.
  void find_losses() {
    V all{};
    for_each_group([&](std::int64_t g) MPSNN_INLINE_LAMBDA {
      const V weight = row_weight_.group(g);
      const V total = label_product(label_sum_.group(g), log_sum_.group(g)) + cross_.group(g);
      const V losses = select<V>(weight != V{}, total * weight, V{});
      losses_.values.set_group(g, losses);
      all += losses;
    });
    losses_.finite = is_finite(all);
  }

  /// Ends the rows: the sum of their losses where those are reduced.
  double finish() {
    const bool finite = losses_.finite && gradients_.finite;
    double sum = kLastResort || finite ? 0 : run_lost_rows();
    if (!reduces_) return 0;
    if (plan_.sums_per_image) {
      for (std::int64_t r = 0; r < rows_; ++r) add_to_image(r, losses_.values[r]);
    }
    if constexpr (kLong) return sum + static_cast<double>(losses_.values[0]);
    Accumulator<T> in_range;
    for_each_group([&](std::int64_t g) { in_range.add(losses_.values.group(g)); });
    return sum + in_range.total();
  }

  /// What left the range of float32 on its way may still be a number, and float64 decides. Returns
  /// the sum of the losses that come from there.
  double run_lost_rows() {
    double sum = 0;
    const auto is_lost = [](const Checked& sums, std::int64_t r) {
      return !sums.finite && sums.values[r] - sums.values[r] != 0;
    };
    for (std::int64_t r = 0; r < rows_; ++r) {
      if (is_lost(losses_, r)) {
        const double loss = run_again(r, true);
        sum += loss;
        losses_.values.set(r, T(0));
      }
      if (is_lost(gradients_, r)) run_again(r, false);
    }
    return sum;
  }

  void add_to_image(std::int64_t row, T loss) {
    plan_.sums[(pixel_ + row) / plan_.image_units] += static_cast<double>(loss);
  }

  /// Computes the loss, or else the gradient, of a row in float64.
  double run_again(std::int64_t row, bool loss) {
    Plan part = plan_;
    part.want_loss = loss;
    part.want_gradient = !loss;
    flush();
    SoftmaxRows<double, RowLayout::long_row, Factors> again(part, wide_room_, row_scratch_,
                                                            wide_room_);
    const double sum = again.run(pixel_ + row, 1);
    again.flush();
    return sum;
  }

  static constexpr bool kLastResort = sizeof(T) == sizeof(double);

  WideRoom& wide_room_;
  TileWriter<T> loss_writer_, gradient_writer_;
  Checked losses_, gradients_;
};

/// The rooms of a chunk; behind them is that for a row.
template <class T, RowLayout layout>
struct SoftmaxScratch {
  SoftmaxRoom<T, layout> room;
  SoftmaxRoom<double, RowLayout::long_row> wide_room;
};

template <class T, RowLayout layout, bool Factors>
void run_softmax_rows(const Plan& plan, std::int64_t chunk, std::byte* memory) {
  const Range range = chunk_range(plan, chunk);
  auto& scratch = *new (memory) SoftmaxScratch<T, layout>;
  SoftmaxRows<T, layout, Factors> rows(plan, scratch.room, memory + sizeof scratch,
                                       scratch.wide_room);
  const std::int64_t most = rows.most_rows();
  CompensatedSum sum;
  for (std::int64_t pixel = range.first; pixel < range.last; pixel += most) {
    const std::int64_t rest = range.last - pixel;
    sum.add(rows.run(pixel, rest < most ? rest : most));
  }
  rows.flush();
  if (is_summed(plan)) plan.sums[chunk] = sum.total();
  if (plan.gradient.streams) finish_streams();
}

template <class T>
void run_softmax_chunk(const Plan& plan, std::int64_t chunk, std::byte* scratch) {
  const bool factors = plan.source_gradients.data != nullptr || plan.weights.strides[3] != 0;
  const auto run = [&](auto layout) {
    factors ? run_softmax_rows<T, layout, true>(plan, chunk, scratch)
            : run_softmax_rows<T, layout, false>(plan, chunk, scratch);
  };
  using enum RowLayout;
#if !defined(__AVX512F__)  // see kernels.cpp
  const RowLayout layout = layout_of(plan);
  if (layout == short_rows) return run(std::integral_constant<RowLayout, short_rows>());
  if (layout == planes) return run(std::integral_constant<RowLayout, planes>());
#endif
  run(std::integral_constant<RowLayout, long_row>());
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
