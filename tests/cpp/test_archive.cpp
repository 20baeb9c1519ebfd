// Archives of kernels: every property survives, and nothing but an intact archive is read.
#include "objects/archive.hpp"

#include <cmath>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "support.hpp"

namespace mpsnn_loss::test {
namespace {

constexpr KernelKind kKinds[] = {KernelKind::forward_loss, KernelKind::loss_gradient,
                                 KernelKind::initial_gradient};

// Places in the archive (objects/archive.hpp).
constexpr std::size_t kVersionAt = 8, kLossAt = 16, kReductionAt = 20, kFlagsAt = 24, kWordsAt = 28,
                      kClassesAt = 32, kWeightAt = 40, kSmoothingAt = 48, kEpsilonAt = 56,
                      kDeltaAt = 64, kOptionsAt = 72, kInheritedAt = 80;
constexpr std::size_t kMovedRow = sizeof(std::uint64_t) + sizeof(PropertyValue);

std::shared_ptr<Kernel> make_kernel(KernelKind kind, const LossDescriptor& descriptor = {}) {
  return cpu_device()->make_kernel(kind, descriptor);
}

std::shared_ptr<Kernel> read(const std::string& data, KernelKind kind) {
  return unarchive(data, kind, cpu_device());
}

void check_same(const Kernel& a, const Kernel& b) {
  CHECK(a.kind() == b.kind());
  CHECK(a.descriptor() == b.descriptor());
  const KernelProperties p = a.properties(), q = b.properties();
  CHECK(p.parameters == q.parameters);
  CHECK(p.compute_label_gradients == q.compute_label_gradients);
  CHECK(p.options == q.options);
  CHECK(p.has_label == q.has_label);
  CHECK(p.label == q.label);
  CHECK(p.moved == q.moved);
}

void check_round_trip(const Kernel& kernel) {
  const std::string data = archive(kernel);
  const auto again = read(data, kernel.kind());
  check_same(kernel, *again);
  CHECK(archive(*again) == data);
  check_same(kernel, *kernel.copy(cpu_device()));
}

/// A kernel with every property away from its default.
std::shared_ptr<Kernel> make_changed_kernel(KernelKind kind) {
  const auto kernel = make_kernel(
      kind, {LossType::softmax_cross_entropy, ReductionType::mean, true, 10, {2, 0.5, 0, 3}});
  kernel->update([&](KernelProperties& p) {
    p.compute_label_gradients = true;
    p.options = 1;
    p.has_label = true;
    p.label = "a label";
    const auto rows = inherited_properties(kind);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!rows[i].read_only)
        p.moved[i] = rows[i].form == PropertyForm::region ? PropertyValue{0, 1, 2, 3, 4, 5}
                                                          : PropertyValue{1};
    }
  });
  return kernel;
}

template <class Unsigned>
void write(std::string& data, std::size_t at, Unsigned value) {
  for (std::size_t i = 0; i < sizeof value; ++i) {
    data[at + i] = static_cast<char>(value >> (8 * i) & 0xFF);
  }
}

/// Gives altered data the checksum that belongs to it (CRC-32, IEEE 802.3), if it has room for one.
std::string sealed(std::string data) {
  if (data.size() < 4) return data;
  std::uint32_t crc = ~0u;
  for (std::size_t i = 0; i + 4 < data.size(); ++i) {
    crc ^= static_cast<unsigned char>(data[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1u) != 0 ? 0xEDB88320u : 0u);
  }
  write(data, data.size() - 4, ~crc);
  return data;
}

template <class Unsigned>
std::string with(std::string data, std::size_t at, Unsigned value) {
  write(data, at, value);
  return sealed(std::move(data));
}
std::string with(const std::string& data, std::size_t at, double value) {
  return with(data, at, __builtin_bit_cast(std::uint64_t, value));
}

/// The archive of the first version, which had every row or none.
std::string first_version(const Kernel& kernel) {
  const std::string data = archive(kernel);
  const KernelProperties p = kernel.properties();
  std::string values;
  for (std::size_t i = 0; !p.moved.empty() && i < inherited_properties(kernel.kind()).size(); ++i) {
    std::string value(sizeof(PropertyValue), '\0');
    std::size_t at = 0;
    for (const std::int64_t word : kernel.inherited(i))
      write(value, std::exchange(at, at + sizeof word), static_cast<std::uint64_t>(word));
    values += value;
  }
  std::string first = data.substr(0, kInheritedAt) + values +
                      data.substr(kInheritedAt + p.moved.size() * kMovedRow);
  write(first, kVersionAt, 1u);
  write(first, kWordsAt, static_cast<std::uint32_t>(values.size() / sizeof(std::int64_t)));
  return sealed(std::move(first));
}

void check_refused_data(const std::string& data, KernelKind kind,
                        const std::string& words = "data") {
  check_refused<ValueError>(words, [&] { read(data, kind); });
}

}  // namespace

TEST_CASE("every descriptor survives an archive") {
  for (const KernelKind kind : kKinds) {
    for (const LossInfo& loss : kLosses) {
      for (const ReductionInfo& reduction : kReductions) {
        if (!reduction.is_apples) continue;
        if (loss.sums_only && reduction.type != ReductionType::sum) continue;
        for (const bool across : {false, true}) {
          check_round_trip(*make_kernel(kind, {loss.type, reduction.type, across, 3, {}}));
        }
      }
    }
  }
}

TEST_CASE("every number survives an archive bit for bit") {
  using Limits = std::numeric_limits<double>;
  const double numbers[] = {0.0, 1.0, 0.1, Limits::denorm_min(), Limits::min(), Limits::max()};
  for (const KernelKind kind : kKinds) {
    for (const double x : numbers) {
      const LossParameters p{-x, x <= 1 ? x : 1 / x, x, x > 0 ? x : 1};
      check_round_trip(*make_kernel(kind, {LossType::log, ReductionType::sum, false, 1, p}));
    }
    for (const std::int64_t classes : {std::int64_t{1}, std::int64_t{1} << 40, INT64_MAX}) {
      check_round_trip(
          *make_kernel(kind, {LossType::hinge, ReductionType::none, false, classes, {}}));
    }
  }
  const auto kernel = make_kernel(KernelKind::forward_loss);
  kernel->update([](KernelProperties& p) { p.parameters.weight = -0.0; });
  CHECK(std::signbit(
      read(archive(*kernel), KernelKind::forward_loss)->properties().parameters.weight));
}

TEST_CASE("properties changed after the making survive an archive") {
  for (const KernelKind kind : kKinds) {
    check_round_trip(*make_changed_kernel(kind));
    const auto kernel = make_kernel(kind);
    const auto change = [&](const std::function<void(KernelProperties&)>& f) {
      kernel->update(f);
      check_round_trip(*kernel);
    };
    change([](KernelProperties& p) { p.parameters = {3, 0.25, 0.5, 2}; });
    change([](KernelProperties& p) { p.compute_label_gradients = true; });
    for (const std::uint64_t options : {1u, 16u, 31u}) {
      change([&](KernelProperties& p) { p.options = options; });
    }
    for (const std::string& label :
         {std::string(), std::string("x"), std::string("ω Σ \xF0\x9F\x8D\x8E"),
          std::string("a\0b", 3), std::string(100000, 'l')}) {
      change([&](KernelProperties& p) { p.has_label = true, p.label = label; });
    }
    change([](KernelProperties& p) { p.has_label = false, p.label.clear(); });
  }
}

TEST_CASE("every inherited property survives an archive by itself") {
  for (const KernelKind kind : kKinds) {
    const auto rows = inherited_properties(kind);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i].read_only) continue;
      const auto kernel = make_kernel(kind);
      PropertyValue value{1};
      if (rows[i].form == PropertyForm::offset) value = {INT64_MIN, -1, INT64_MAX};
      if (rows[i].form == PropertyForm::region) value = {0, 1, 2, 3, 4, INT64_MAX};
      if (value == rows[i].default_value) value = {2};
      INFO(std::string(rows[i].name));
      kernel->update([&](KernelProperties& p) { p.moved[i] = value; });
      CHECK(kernel->inherited(i) == value);
      check_round_trip(*kernel);
      const auto read_back = read(archive(*kernel), kind);
      check_refused<ValueError>(rows[i].name, [&] { request_of(*read_back); });
    }
  }
}

TEST_CASE("every truncation and every extension is refused") {
  for (const KernelKind kind : kKinds) {
    for (const auto& kernel : {make_kernel(kind), make_changed_kernel(kind)}) {
      const std::string data = archive(*kernel);
      for (std::size_t length = 0; length < data.size(); ++length) {
        check_refused_data(data.substr(0, length), kind);
        if (length >= 4) check_refused_data(sealed(data.substr(0, length)), kind);
      }
      for (const char c : {'\0', 'x'}) {
        check_refused_data(data + c, kind);
        check_refused_data(sealed(data + c), kind);
        check_refused_data(sealed(data + std::string(48, c)), kind);
      }
    }
  }
}

TEST_CASE("every change of a single bit is refused") {
  for (const KernelKind kind : kKinds) {
    for (const auto& kernel : {make_kernel(kind), make_changed_kernel(kind)}) {
      const std::string data = archive(*kernel);
      for (std::size_t bit = 0; bit < data.size() * 8; ++bit) {
        std::string altered = data;
        altered[bit / 8] = static_cast<char>(altered[bit / 8] ^ (1 << (bit % 8)));
        check_refused_data(altered, kind);
      }
    }
  }
}

TEST_CASE("with a right checksum, a change is refused or means exactly what it says") {
  for (const KernelKind kind : kKinds) {
    for (const auto& kernel : {make_kernel(kind), make_changed_kernel(kind)}) {
      const std::string data = archive(*kernel);
      for (std::size_t bit = 0; bit < (data.size() - 4) * 8; ++bit) {
        std::string altered = data;
        altered[bit / 8] = static_cast<char>(altered[bit / 8] ^ (1 << (bit % 8)));
        altered = sealed(std::move(altered));
        std::string again;
        const std::string words =
            refusal_of<ValueError>([&] { again = archive(*read(altered, kind)); });
        CAPTURE(bit);
        CAPTURE(words);
        if (words != "(no error)") continue;
        // A property that is back where it was is not written again.
        CHECK((again == altered || again.size() < altered.size()));
        check_same(*read(again, kind), *read(altered, kind));
      }
    }
  }
}

TEST_CASE("unknown options, unknown flags and labels that are not UTF-8 are refused") {
  for (const KernelKind kind : kKinds) {
    const auto kernel = make_kernel(kind);
    kernel->update([](KernelProperties& p) { p.has_label = true, p.label = "1234"; });
    const std::string data = archive(*kernel);
    for (int bit = 5; bit < 64; ++bit)
      check_refused_data(with(data, kOptionsAt, std::uint64_t{1} << bit), kind, "options");
    for (int bit = 3; bit < 32; ++bit)
      check_refused_data(with(data, kFlagsAt, 4u | 1u << bit), kind, "data must be an intact");
    const std::size_t label = data.size() - 8;
    for (const char* wrong :
         {"\x80zzz", "\xC0\x80zz", "\xC1\xBFzz", "\xE0\x9F\x80z", "\xED\xA0\x80z",
          "\xF0\x8F\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFFzzz", "zzz\xC3",
          "zz\xE2\x82", "z\xF0\x9F\x8D", "\xC3(zz"}) {
      check_refused_data(sealed(std::string(data).replace(label, 4, wrong)), kind,
                         "data must be an intact archive: its label");
    }
    for (const char* right : {"\xC2\x80zz", "\xED\x9F\xBFz", "\xEE\x80\x80z", "\xF4\x8F\xBF\xBF"})
      CHECK_NOTHROW(read(sealed(std::string(data).replace(label, 4, right)), kind));
  }
}

TEST_CASE("archives of another class or another version are refused") {
  for (const KernelKind kind : kKinds) {
    const std::string data = archive(*make_kernel(kind));
    for (const KernelKind other : kKinds) {
      if (other != kind)
        check_refused_data(data, other, "data must be an intact archive: it holds no");
    }
    for (const std::uint32_t version : {0u, 3u, 0x01000000u}) {
      check_refused_data(with(data, kVersionAt, version), kind,
                         "data must be an intact archive: version");
    }
  }
}

TEST_CASE("an archive with a right checksum is checked as setters check") {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const KernelKind kind : kKinds) {
    const std::string data = archive(*make_kernel(kind));
    CHECK_NOTHROW(read(with(data, kWeightAt, 3.0), kind));
    for (const double value : {infinity, nan}) {
      check_refused_data(with(data, kWeightAt, value), kind, "weight");
      check_refused_data(with(data, kSmoothingAt, value), kind, "label_smoothing");
      check_refused_data(with(data, kEpsilonAt, value), kind, "epsilon");
      check_refused_data(with(data, kDeltaAt, value), kind, "delta");
    }
    check_refused_data(with(data, kSmoothingAt, 1.5), kind, "label_smoothing");
    check_refused_data(with(data, kEpsilonAt, -1.0), kind, "epsilon");
    check_refused_data(with(data, kDeltaAt, 0.0), kind, "delta");
    for (const std::uint64_t count : {std::uint64_t{0}, std::uint64_t{1} << 63, UINT64_MAX}) {
      check_refused_data(with(data, kClassesAt, count), kind, "number_of_classes");
    }
    check_refused_data(with(data, kLossAt, 10u), kind);
    check_refused_data(with(data, kReductionAt, 4u), kind);
    check_refused_data(with(data, kLossAt, 7u), kind, "reduction");  // cosine distance, none
    for (const std::uint32_t words : {1u, 6u, 1000u, 0xFFFFFFFFu}) {
      check_refused_data(with(data, kWordsAt, words), kind);
    }
  }
}

TEST_CASE("an archive with a right checksum sets no read-only property and no unknown member") {
  for (const KernelKind kind : kKinds) {
    const auto kernel = make_changed_kernel(kind);
    const std::string first = first_version(*kernel), second = archive(*kernel);
    const auto rows = inherited_properties(kind);
    const auto refuse_value = [&](std::size_t i, std::uint64_t value) {
      INFO(std::string(rows[i].name));
      check_refused_data(with(first, kInheritedAt + i * sizeof(PropertyValue), value), kind,
                         rows[i].name);
      const auto moved = kernel->properties().moved;
      if (const auto row = moved.find(i); row != moved.end()) {
        const auto place = static_cast<std::size_t>(std::distance(moved.begin(), row));
        check_refused_data(with(second, kInheritedAt + place * kMovedRow + sizeof value, value),
                           kind, rows[i].name);
      }
    };
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i].read_only) {
        refuse_value(i, 5);
        check_refused_data(with(second, kInheritedAt, std::uint64_t{i}), kind,
                           std::string("data must be an intact archive: ") + rows[i].name);
      }
      if (rows[i].form == PropertyForm::allocator) refuse_value(i, 2);
      if (rows[i].form == PropertyForm::edge_mode) refuse_value(i, 5);
      if (rows[i].form == PropertyForm::padding) refuse_value(i, 1u << 11);
      if (rows[i].form == PropertyForm::region) refuse_value(i, std::uint64_t{1} << 63);
    }
    const std::string out_of_place = "data must be an intact archive: property ";
    for (const std::uint64_t index : {std::uint64_t{rows.size()}, UINT64_MAX})
      check_refused_data(with(second, kInheritedAt, index), kind, out_of_place);
    const auto second_index = std::next(kernel->properties().moved.begin())->first;
    check_refused_data(with(second, kInheritedAt, std::uint64_t{second_index}), kind, out_of_place);
  }
}

TEST_CASE("an archive of the first version is read") {
  for (const KernelKind kind : kKinds) {
    for (const auto& kernel : {make_kernel(kind), make_changed_kernel(kind)}) {
      const std::string data = first_version(*kernel);
      check_same(*kernel, *read(data, kind));
      for (std::size_t length = 0; length < data.size(); ++length)
        check_refused_data(sealed(data.substr(0, length)), kind);
    }
  }
}

TEST_CASE("an archive holds the inherited properties that were moved, and no others") {
  const auto kernel = make_kernel(KernelKind::loss_gradient);
  const std::size_t empty = archive(*kernel).size();
  kernel->update([](KernelProperties& p) { p.moved[0] = {1, 2, 3}; });
  CHECK(archive(*kernel).size() == empty + kMovedRow);
  kernel->update([](KernelProperties& p) { p.moved[0] = {}; });  // as it was
  CHECK(archive(*kernel).size() == empty);
}

}  // namespace mpsnn_loss::test
