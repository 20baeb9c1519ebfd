#include "objects/archive.hpp"

#include <bit>
#include <cstdint>
#include <cstring>
#include <map>

#include "core/error.hpp"

namespace mpsnn_loss {
namespace {

constexpr std::string_view kMagic = "MPSNNLos";
constexpr std::uint32_t kVersion = 2, kFirstVersion = 1;
constexpr std::uint32_t kAcrossBatch = 1, kLabelGradients = 2, kHasLabel = 4;
constexpr std::uint32_t kAllFlags = kAcrossBatch | kLabelGradients | kHasLabel;
constexpr std::size_t kWords = std::tuple_size_v<PropertyValue>;  // of one value

std::uint32_t crc32(std::string_view data) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

template <class Unsigned>
void put(std::string& out, Unsigned value) {
  for (std::size_t i = 0; i < sizeof value; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
}

[[noreturn]] void malformed(const std::string& why) {
  throw ValueError("data must be an intact archive: " + why);
}

/// Well-formed UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF.
bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char lead = byte(i);
    const std::size_t length = lead < 0x80   ? 1
                               : lead < 0xC2 ? 0
                               : lead < 0xE0 ? 2
                               : lead < 0xF0 ? 3
                               : lead < 0xF5 ? 4
                                             : 0;
    if (length == 0 || length > text.size() - i) return false;
    for (std::size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xC0) != 0x80) return false;
    }
    // The second byte excludes what a shorter form or no form can write.
    const unsigned char second = length > 1 ? byte(i + 1) : 0;
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
        (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) {
      return false;
    }
    i += length;
  }
  return true;
}

class Reader {
 public:
  explicit Reader(std::string_view data) : rest_(data) {}

  std::string_view take(std::size_t count) {
    if (rest_.size() < count) malformed("it is truncated");
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  template <class Unsigned>
  Unsigned number() {
    Unsigned value = 0;
    const std::string_view bytes = take(sizeof value);
    for (std::size_t i = sizeof value; i-- > 0;) {
      value = static_cast<Unsigned>(value << 8 | static_cast<unsigned char>(bytes[i]));
    }
    return value;
  }
  double real() { return std::bit_cast<double>(number<std::uint64_t>()); }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

LossDescriptor read_descriptor(Reader& in, std::uint32_t& flags, std::uint32_t& words) {
  const auto loss = in.number<std::uint32_t>();
  const auto reduction = in.number<std::uint32_t>();
  flags = in.number<std::uint32_t>();
  words = in.number<std::uint32_t>();
  if (loss >= kApplesLosses) malformed("loss type " + std::to_string(loss) + " is unknown");
  if (reduction >= kApplesReductions)
    malformed("reduction type " + std::to_string(reduction) + " is unknown");
  if ((flags & ~kAllFlags) != 0) malformed("flags " + std::to_string(flags) + " are unknown");
  LossDescriptor descriptor{static_cast<LossType>(loss),
                            static_cast<ReductionType>(reduction),
                            (flags & kAcrossBatch) != 0,
                            1,
                            {}};
  descriptor.number_of_classes = static_cast<std::int64_t>(in.number<std::uint64_t>());
  for (const auto& [name, field, check, help] : kLossParameters)
    descriptor.parameters.*field = in.real();
  return descriptor;
}

using Rows = std::map<std::size_t, PropertyValue>;

PropertyValue read_value(Reader& in, const InheritedProperty& property) {
  PropertyValue value;
  for (std::int64_t& word : value) word = static_cast<std::int64_t>(in.number<std::uint64_t>());
  check_property_value(property, value);
  return value;
}

[[noreturn]] void refuse_words(std::uint32_t words) {
  malformed("it has " + std::to_string(words) + " property words");
}

/// Version 1: every row that there was, or none.
Rows read_all_rows(Reader& in, KernelKind kind, std::uint32_t words) {
  const std::size_t all = kind == KernelKind::loss_gradient ? 26 : 16;
  const auto properties = inherited_properties(kind).first(all);
  if (words != 0 && words != properties.size() * kWords) refuse_words(words);
  Rows rows;
  for (std::size_t row = 0; row < words / kWords; ++row) {
    const PropertyValue value = read_value(in, properties[row]);
    if (value != properties[row].default_value) rows[row] = value;
  }
  return rows;
}

/// Version 2: those that were moved, each after its index.
Rows read_moved_rows(Reader& in, KernelKind kind, std::uint32_t words) {
  const auto properties = inherited_properties(kind);
  constexpr std::size_t kRow = 1 + kWords;
  if (words % kRow != 0 || words / kRow > properties.size()) refuse_words(words);
  Rows rows;
  for (std::size_t i = 0; i < words / kRow; ++i) {
    const auto row = in.number<std::uint64_t>();
    if (row >= properties.size() || (!rows.empty() && row <= rows.rbegin()->first))
      malformed("property " + std::to_string(row) + " is out of place");
    if (properties[row].read_only) malformed(std::string(properties[row].name) + " is read-only");
    rows[row] = read_value(in, properties[row]);
  }
  return rows;
}

}  // namespace

std::string archive(const Kernel& kernel) {
  const LossDescriptor descriptor = kernel.descriptor();
  const KernelProperties properties = kernel.properties();
  std::string out(kMagic);
  put(out, kVersion);
  put(out, static_cast<std::uint32_t>(kernel.kind()));
  put(out, static_cast<std::uint32_t>(descriptor.loss_type));
  put(out, static_cast<std::uint32_t>(descriptor.reduction_type));
  put(out, (descriptor.reduce_across_batch ? kAcrossBatch : 0u) |
               (properties.compute_label_gradients ? kLabelGradients : 0u) |
               (properties.has_label ? kHasLabel : 0u));
  put(out, static_cast<std::uint32_t>(properties.moved.size() * (1 + kWords)));
  put(out, static_cast<std::uint64_t>(descriptor.number_of_classes));
  for (const auto& [name, field, check, help] : kLossParameters)
    put(out, std::bit_cast<std::uint64_t>(properties.parameters.*field));
  put(out, properties.options);
  for (const auto& [row, value] : properties.moved) {
    put(out, static_cast<std::uint64_t>(row));
    for (const std::int64_t word : value) put(out, static_cast<std::uint64_t>(word));
  }
  put(out, static_cast<std::uint32_t>(properties.label.size()));
  out += properties.label;
  put(out, crc32(out));
  return out;
}

std::shared_ptr<Kernel> unarchive(std::string_view data, KernelKind kind,
                                  const std::shared_ptr<Device>& device) {
  constexpr std::size_t kChecksum = sizeof(std::uint32_t);
  if (data.substr(0, kMagic.size()) != kMagic) malformed("it does not begin as one");
  if (data.size() < kMagic.size() + kChecksum) malformed("it is truncated");
  const std::string_view body = data.substr(0, data.size() - kChecksum);
  if (Reader(data.substr(body.size())).number<std::uint32_t>() != crc32(body)) {
    malformed("its checksum does not match");
  }
  Reader in(body.substr(kMagic.size()));
  const auto version = in.number<std::uint32_t>();
  if (version != kVersion && version != kFirstVersion)
    malformed("version " + std::to_string(version) + " is neither 1 nor 2");
  const auto stored_kind = in.number<std::uint32_t>();
  if (stored_kind != static_cast<std::uint32_t>(kind)) {
    malformed(std::string("it holds no ") + class_name(kind) + " but class " +
              std::to_string(stored_kind));
  }
  std::uint32_t flags = 0, words = 0;
  const LossDescriptor descriptor = read_descriptor(in, flags, words);
  check(descriptor);  // also of an initial gradient, which has none
  KernelProperties properties;
  properties.parameters = descriptor.parameters;
  properties.compute_label_gradients = (flags & kLabelGradients) != 0;
  properties.has_label = (flags & kHasLabel) != 0;
  properties.options = in.number<std::uint64_t>();
  check_options(properties.options);
  properties.moved =
      version == kFirstVersion ? read_all_rows(in, kind, words) : read_moved_rows(in, kind, words);
  properties.label = in.take(in.number<std::uint32_t>());
  if (!in.empty()) malformed("it is longer than its contents");
  if (!is_utf8(properties.label)) malformed("its label is not UTF-8");
  if (!properties.has_label && !properties.label.empty()) malformed("its label has no flag");
  auto kernel = device->make_kernel(kind, descriptor);
  kernel->update([&](KernelProperties& p) { p = std::move(properties); });
  return kernel;
}

}  // namespace mpsnn_loss
