// The loop of softmax cross entropy, whose channels are coupled: a row of C channels per pixel.
//
//   e_c = exp(y_c - max y), S = Σ e_c        -lp_c = log S + (max y - y_c), both parts >= 0
//   a_c = g_c ω v_c t'_c / D                 dL/dy_j = e_j (Σ a_c / S) - a_j
//                                            dL/dt_c = g_c ω v_c (1 - s) (-lp_c) / D
//
// One algorithm for both layouts of softmax_operands.hpp; they differ in what is added across
// lanes.
#pragma once

#include <type_traits>

#include "cpu/formulas.hpp"
#include "cpu/math.hpp"
#include "cpu/plan.hpp"
#include "cpu/softmax_sums.hpp"
#include "cpu/staging.hpp"

namespace mpsnn_loss::cpu::MPSNN_ISA {

/// One row, or as many as a vector has lanes. Factors: weights or source gradients differ from
/// channel to channel.
template <class T, bool Narrow, bool Factors>
class SoftmaxRows : SoftmaxSums<T, Narrow, Factors> {
  using Base = SoftmaxSums<T, Narrow, Factors>;
  using Base::across, Base::class_of, Base::exponentials_at, Base::find_log_sum,
      Base::for_each_tile, Base::smoothing, Base::spread_total, Base::walk;
  using Base::alive_, Base::by_class_, Base::channels_, Base::cross_, Base::first_, Base::labels_,
      Base::live_, Base::log_sum_, Base::maximum_, Base::pixel_, Base::plan_, Base::pulls_,
      Base::reduces_, Base::row_scratch_, Base::row_weight_, Base::rows_, Base::scale_, Base::sum_,
      Base::writes_values_;
  using Base::kWidth;
  using typename Base::Operands, typename Base::Smoothing, typename Base::V;

 public:
  using Base::kMostRows;

  /// `row_scratch`: room for the exponentials of a wide row.
  SoftmaxRows(const Plan& plan, std::byte* row_scratch, TileWriter<T>& loss_writer,
              TileWriter<T>& gradient_writer)
      : Base(plan, row_scratch), loss_writer_(loss_writer), gradient_writer_(gradient_writer) {}

  /// Writes the outputs of `rows` rows; returns the sum of their losses where those are reduced to
  /// one.
  double run(std::int64_t pixel, std::int64_t rows) {
    loss_check_ = gradient_check_ = V{};
    this->read(pixel, rows);
    if (!Narrow && row_weight_[0] == T(0)) return write_zeros(), 0;
    this->find_maximum();
    this->sum_up();
    if (writes_values_) write_values();
    if (pulls_) write_gradient();
    return finish();
  }

 private:
  /// Hands a tile of results over. Narrow rows are turned back and gathered in `writer`.
  void put_tile(const T* tile, std::int64_t c, std::int64_t count, const Sink& sink,
                TileWriter<T>& writer) {
    if constexpr (Narrow) {
      lanes_to_rows(tile, channels_, writer.room(first_, kWidth * channels_));
      writer.advance(rows_ * channels_);
    } else {
      put(tile, count, sink, first_ + c);
    }
  }

  /// Losses that are not reduced, and label gradients: both are products with -lp.
  void write_values() {
    find_log_sum();
    const bool loss = plan_.want_loss && plan_.loss.data != nullptr;
    const bool gradient = plan_.want_gradient && plan_.by_labels;
    const Smoothing smooth = smoothing();
    const V maximum = maximum_, log_sum = log_sum_;
    const V loss_scale = row_weight_ * static_cast<T>(plan_.loss_scale);
    const V slope_scale = scale_ * smooth.scale;
    const Mask<V> alive = alive_;
    V loss_check{}, gradient_check{};
    for_each_tile(true, [&](std::int64_t c, std::int64_t count, const Operands& in) {
      const auto surprise = [&](V y) { return log_sum + (maximum - y); };  // -lp
      if (loss) {
        T* const out = Narrow ? out_ : place_of(plan_.loss, first_ + c, out_);
        Operands weights = in;
        weights.g = nullptr;
        walk(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) {
          V u = label_product(smooth(load_at(in.t + i)), surprise(load_at(in.y + i)));
          u = select<V>(alive, this->with_factors(u, weights, i, load_at) * loss_scale, V{});
          store_at(out + i, u);
          loss_check += select<V>(live, u, V{});
        });
        put_tile(out, c, count, plan_.loss, loss_writer_);
      }
      if (!gradient) return;
      T* const out = Narrow ? out_ : place_of(plan_.gradient, first_ + c, out_);
      walk(count, [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) {
        V d = this->with_factors(surprise(load_at(in.y + i)) * slope_scale, in, i, load_at);
        d = select<V>(alive, d, V{});
        store_at(out + i, d);
        gradient_check += select<V>(live, d, V{});
      });
      put_tile(out, c, count, plan_.gradient, gradient_writer_);
    });
    loss_check_ = across(select<V>(live_, loss_check, V{}));
    gradient_check_ = across(select<V>(live_, gradient_check, V{}));
  }

  void write_gradient() {
    const V ratio = spread_total(labels_ / sum_) * scale_;
    const V label_factor = scale_ * -static_cast<T>(plan_.label_scale);
    const V offset = scale_ * -static_cast<T>(plan_.label_offset);
    T hot[lanes<V>];  // the gradient of each row's class, before the exponentials are overwritten
    if (by_class_) {
      T e[lanes<V>] = {};
      for (std::int64_t r = 0; r < rows_; ++r) {
        const std::int64_t given = class_of(r), index = given < 0 ? 0 : given;
        e[r] = exponentials_at(0)[Narrow ? index * kWidth + r : index];
      }
      store(hot, mul_add(load<V>(e), ratio, label_factor + offset));
    }
    const Smoothing smooth = smoothing();
    const V scale = scale_;
    const Mask<V> alive = alive_;
    V check{};
    for_each_tile(true, [&](std::int64_t c, std::int64_t count, const Operands& in) {
      const T* const e = exponentials_at(c);
      T* const out = Narrow ? out_ : place_of(plan_.gradient, first_ + c, out_);
      const auto gradient_with = [&](auto minus_a) MPSNN_INLINE_LAMBDA {
        walk(count,
             [&](std::int64_t i, auto load_at, auto store_at, Mask<V> live) MPSNN_INLINE_LAMBDA {
               V d = mul_add(load_at(e + i), ratio, minus_a(i, load_at));
               if constexpr (Narrow) d = select<V>(alive, d, V{});
               store_at(out + i, d);
               check += select<V>(live, d, V{});
             });
      };
      if constexpr (Factors) {
        gradient_with([&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
          return -this->with_factors(smooth(load_at(in.t + i)) * scale, in, i, load_at);
        });
      } else if (in.t == nullptr) {
        gradient_with([&](std::int64_t, auto) MPSNN_INLINE_LAMBDA { return offset; });
      } else {
        gradient_with([&](std::int64_t i, auto load_at) MPSNN_INLINE_LAMBDA {
          return mul_add(load_at(in.t + i), label_factor, offset);
        });
      }
      if (by_class_) set_hot(out, c, count, hot);
      put_tile(out, c, count, plan_.gradient, gradient_writer_);
    });
    gradient_check_ = across(select<V>(live_, check, V{}));
  }

  void set_hot(T* out, std::int64_t c, std::int64_t count, const T* hot) {
    for (std::int64_t r = 0; r < rows_; ++r) {
      const std::int64_t index = class_of(r);
      if (index < 0) continue;
      if constexpr (Narrow) {
        out[index * kWidth + r] = hot[r];
      } else if (index >= c && index < c + count) {
        out[index - c] = hot[r];
      }
    }
  }

  void write_zeros() {
    for (T& zero : out_) zero = T(0);
    for (std::int64_t c = 0; c < channels_; c += kTileElements) {
      const std::int64_t rest = channels_ - c, count = rest < kTileElements ? rest : kTileElements;
      if (plan_.want_gradient) put(out_, count, plan_.gradient, first_ + c);
      if (plan_.want_loss && plan_.loss.data != nullptr) put(out_, count, plan_.loss, first_ + c);
    }
  }

  /// The reduced losses of the rows.
  V find_losses() {
    find_log_sum();
    const V total = label_product(spread_total(labels_), log_sum_) + spread_total(cross_);
    return select<V>(alive_, total * row_weight_, V{});
  }

  /// Ends the rows.
  double finish() {
    V losses{};
    if (reduces_) losses = find_losses();
    if (!kLastResort && !is_finite(losses + loss_check_ + gradient_check_))
      return finish_in_float64(losses);
    double sum = 0;
    for (std::int64_t r = 0; reduces_ && r < rows_; ++r) sum += add_loss(r, losses[r]);
    return sum;
  }

  /// What left the range of float32 on its way may still be a number, and float64 decides.
  double finish_in_float64(V losses) {
    double sum = 0;
    for (std::int64_t r = 0; r < rows_; ++r) {
      const auto not_finite = [r](V x) { return x[r] - x[r] != 0; };
      if (not_finite(losses + loss_check_)) {
        sum += run_again(r, true);
      } else if (reduces_) {
        sum += add_loss(r, losses[r]);
      }
      if (not_finite(gradient_check_)) run_again(r, false);
    }
    return sum;
  }

  double add_loss(std::int64_t row, T value) {
    const auto loss = static_cast<double>(value);
    if (plan_.sums_per_image) plan_.sums[(pixel_ + row) / plan_.image_units] += loss;
    return loss;
  }

  /// Computes the loss, or else the gradient, of a row in float64.
  double run_again(std::int64_t row, bool loss) {
    Plan part = plan_;
    part.want_loss = loss;
    part.want_gradient = !loss;
    (loss ? loss_writer_ : gradient_writer_).flush();
    TileWriter<double> none(plan_.loss);
    return SoftmaxRows<double, false, Factors>(part, row_scratch_, none, none).run(pixel_ + row, 1);
  }

  static constexpr bool kLastResort = sizeof(T) == sizeof(double);

  TileWriter<T>&loss_writer_, &gradient_writer_;
  V loss_check_{}, gradient_check_{};  // sums of the results: not finite where any of them is not
  T out_[kTileElements];
};

template <class T, bool Narrow, bool Factors>
void run_softmax_rows(const Plan& plan, std::int64_t chunk, std::byte* scratch) {
  using Rows = SoftmaxRows<T, Narrow, Factors>;
  const Range range = chunk_range(plan, chunk);
  TileWriter<T> loss_writer(plan.loss), gradient_writer(plan.gradient);
  Rows rows(plan, scratch, loss_writer, gradient_writer);
  CompensatedSum sum;
  for (std::int64_t pixel = range.first; pixel < range.last; pixel += Rows::kMostRows) {
    const std::int64_t rest = range.last - pixel;
    sum.add(rows.run(pixel, rest < Rows::kMostRows ? rest : Rows::kMostRows));
  }
  loss_writer.flush();
  gradient_writer.flush();
  if (is_summed(plan)) plan.sums[chunk] = sum.total();
  if (plan.gradient.streams) finish_streams();
}

template <class T>
void run_softmax_chunk(const Plan& plan, std::int64_t chunk, std::byte* scratch) {
  const bool factors = plan.source_gradients.data != nullptr || plan.weights.strides[3] != 0;
  const bool narrow = plan.shape.channels <= kNarrowChannels;
  const auto run =
      narrow ? (factors ? run_softmax_rows<T, true, true> : run_softmax_rows<T, true, false>)
             : (factors ? run_softmax_rows<T, false, true> : run_softmax_rows<T, false, false>);
  run(plan, chunk, scratch);
}

}  // namespace mpsnn_loss::cpu::MPSNN_ISA
