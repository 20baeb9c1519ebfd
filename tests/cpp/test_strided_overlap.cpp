// Whether strided arrays share memory: core/overlap.hpp against the bytes that they consist of.
#include "core/overlap.hpp"

#include <bitset>
#include <cstdint>
#include <vector>

#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

using Axes = std::vector<std::int64_t>;

constexpr std::int64_t kBase = 512;  // where arrays begin, so that strides may go backwards
using Bytes = std::bitset<1024>;

constexpr ElementType kOfSizes[] = {ElementType::int8, ElementType::bfloat16, ElementType::float32,
                                    ElementType::float64};

/// An array in memory that is not there, as none of it is touched.
struct Strided {
  ElementType type;
  Axes axes, strides;
  std::int64_t first = kBase;

  StridedArray array() const {
    return {reinterpret_cast<const std::byte*>(first), type, false, axes, strides};
  }
  /// Calls visit(address) for each element.
  template <class F>
  void for_each_element(F visit, std::size_t axis = 0, std::int64_t from = 0) const {
    if (axis == axes.size()) return visit(first + from);
    for (std::int64_t i = 0; i < axes[axis]; ++i)
      for_each_element(visit, axis + 1, from + i * strides[axis]);
  }
  Bytes bytes() const {
    Bytes all;
    for_each_element([&](std::int64_t address) {
      for (std::int64_t i = 0; i < size_of(type); ++i)
        all.set(static_cast<std::size_t>(address + i));
    });
    return all;
  }
  bool repeats() const {
    std::size_t count = static_cast<std::size_t>(size_of(type));
    for (const std::int64_t axis : axes) count *= static_cast<std::size_t>(axis);
    return bytes().count() < count;
  }
};

/// All arrays of one rank, with axes and strides out of the choices.
std::vector<Strided> all_arrays(std::size_t rank, const Axes& axes, const Axes& strides) {
  std::vector<Strided> all;
  for (const ElementType type : kOfSizes) all.push_back({type, {}, {}});
  for (std::size_t i = 0; i < rank; ++i) {
    std::vector<Strided> longer;
    for (const Strided& array : all) {
      for (const std::int64_t axis : axes) {
        for (const std::int64_t stride : strides) {
          longer.push_back(array);
          longer.back().axes.push_back(axis);
          longer.back().strides.push_back(stride);
        }
      }
    }
    all = std::move(longer);
  }
  return all;
}

/// Counts the answers, and those that the bytes contradict.
struct Tally {
  int none = 0, some = 0, wrong = 0;

  void add(Overlap given, bool expected) {
    ++(expected ? some : none);
    if (given != (expected ? Overlap::some : Overlap::none)) ++wrong;
  }
  void check(int at_least) const {
    CHECK(wrong == 0);
    CHECK(none > at_least);
    CHECK(some > at_least);
  }
};

/// Each of `arrays` with each, at all distances up to `reach`.
Tally compare_all(const std::vector<Strided>& arrays, std::int64_t reach) {
  std::vector<Bytes> bytes;
  for (const Strided& array : arrays) bytes.push_back(array.bytes());
  Tally tally;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    for (std::size_t j = 0; j < arrays.size(); ++j) {
      Strided moved = arrays[j];
      for (std::int64_t distance = 0; distance <= reach; ++distance) {
        moved.first = kBase + distance;
        const Bytes shared = bytes[i] & bytes[j] << static_cast<std::size_t>(distance);
        tally.add(overlap(arrays[i].array(), moved.array()), shared.any());
      }
    }
  }
  return tally;
}

Strided random_array(Random& random) {
  Strided array{random.one_of(kOfSizes), {}, {}, kBase + random.below(100) - 50};
  const std::int64_t rank = random.below(5);
  for (std::int64_t i = 0; i < rank; ++i) {
    array.axes.push_back(random.one_in(20) ? 0 : 1 + random.below(4));
    array.strides.push_back(random.below(51) - 25);
  }
  return array;
}

/// 60 axes of 2 with enormous odd strides: which of their sums come near to which others is not
/// known before very many have been tried.
Strided knapsack() {
  Strided array{ElementType::int8, {}, {}, std::int64_t{1} << 20};
  Random random(3);
  for (int i = 0; i < 60; ++i) {
    array.axes.push_back(2);
    array.strides.push_back((std::int64_t{1} << 52) + 2 * random.below(std::int64_t{1} << 51) + 1);
  }
  return array;
}

/// `width` columns of an array that has 7 of them, of all rows or fewer.
Strided columns(std::int64_t rows, std::int64_t every, std::int64_t first, std::int64_t width) {
  return {ElementType::float32, {rows / every, width}, {28 * every, 4}, 4096 + 4 * first};
}

/// How many pairs of columns of so long an array are told wrongly.
int wrong_columns(std::int64_t rows) {
  int wrong = 0;
  for (std::int64_t first = 0; first < 7; ++first) {
    for (std::int64_t width = 1; first + width <= 7; ++width) {
      const Strided some = columns(rows, 1, first, width);
      if (self_overlap(some.array()) != Overlap::none) ++wrong;
      for (std::int64_t other = 0; other < 7; ++other) {
        const auto expected =
            other >= first && other < first + width ? Overlap::some : Overlap::none;
        for (const std::int64_t every : {1, 2})
          wrong += overlap(some.array(), columns(rows, every, other, 1).array()) != expected;
      }
    }
  }
  return wrong;
}

}  // namespace

TEST_CASE("two lines overlap exactly where a byte is in both") {
  compare_all(all_arrays(1, {0, 1, 2, 3, 5}, {-8, -5, -3, -1, 0, 1, 2, 4, 7, 12}), 24).check(50000);
}

TEST_CASE("two planes overlap exactly where a byte is in both") {
  compare_all(all_arrays(2, {2, 3}, {-6, -1, 0, 5, 9, 16}), 19).check(50000);
}

TEST_CASE("arrays of any rank overlap exactly where a byte is in both, whichever comes first") {
  Random random(1);
  Tally tally;
  int asymmetric = 0;
  for (int trial = 0; trial < 300000; ++trial) {
    const Strided a = random_array(random), b = random_array(random);
    const Overlap given = overlap(a.array(), b.array());
    tally.add(given, (a.bytes() & b.bytes()).any());
    asymmetric += overlap(b.array(), a.array()) != given;
  }
  tally.check(30000);
  CHECK(asymmetric == 0);
}

TEST_CASE("an array overlaps itself exactly where two elements share a byte") {
  Tally tally;
  for (std::size_t rank = 0; rank <= 2; ++rank) {
    for (const Strided& array :
         all_arrays(rank, {0, 1, 2, 3, 5}, {-9, -8, -5, -3, -2, -1, 0, 1, 2, 4, 7, 10, 12, 27}))
      tally.add(self_overlap(array.array()), array.repeats());
  }
  for (const Strided& array : all_arrays(3, {1, 2, 4}, {-18, -9, -6, -2, 0, 1, 3, 5, 8, 33}))
    tally.add(self_overlap(array.array()), array.repeats());
  Random random(2);
  for (int trial = 0; trial < 100000; ++trial) {
    const Strided array = random_array(random);
    tally.add(self_overlap(array.array()), array.repeats());
  }
  tally.check(30000);
}

TEST_CASE("columns are apart where they are others, in the same rows or in every second one") {
  for (const std::int64_t rows : {2, 3, 1000}) CHECK(wrong_columns(rows) == 0);
}

TEST_CASE("what would take for ever to find is undecided at once") {
  const Strided array = knapsack();
  CHECK(self_overlap(array.array()) == Overlap::undecided);
  std::int64_t reach = 0;
  for (const std::int64_t stride : array.strides) reach += stride;
  const Strided byte{ElementType::int8, {}, {}, array.first + reach / 2};
  CHECK(overlap(array.array(), byte.array()) == Overlap::undecided);
  CHECK(overlap(byte.array(), array.array()) == Overlap::undecided);
  // The ends are easily told from what is beside them.
  Strided at_end = byte;
  for (const std::int64_t end : {array.first, array.first + reach}) {
    at_end.first = end;
    CHECK(overlap(array.array(), at_end.array()) == Overlap::some);
    for (const int step : {-1, 1}) {
      at_end.first = end + step;
      CHECK(overlap(array.array(), at_end.array()) == Overlap::none);
    }
  }
}

TEST_CASE("columns are apart in very long arrays too") {
  for (const std::int64_t rows : {std::int64_t{1} << 20, std::int64_t{1} << 40})
    CHECK(wrong_columns(rows) == 0);
}

}  // namespace mpsnn_loss::test
