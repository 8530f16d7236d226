// What followed each context lately: lists of bytes with counts that fade where others come (Mahoney, "Adaptive Weighing of Context Models for
// Lossless Data Compression", 2005), of bounded size; and adaptive probabilities of what such counts mean.
#pragma once

#include <cstdint>
#include <vector>

#include "../online/elementary.h"
#include "../online/state.h"

namespace language {

inline float stretch(float p) { return static_cast<float>(online::logarithm(p) - online::logarithm(1.0 - p)); }

// The tree of a byte's bits: node 1 is the root, the children of i are 2 i and 2 i + 1, and byte s is leaf 256 + s.
constexpr int kNodes = 256, kTree = 512;

// A probability of a 1 that follows what comes, and its logit.
struct Adaptive {
  std::vector<float> p, logit;
  std::vector<std::uint16_t> counts;

  void begin(std::size_t size) {
    p.assign(size, 0.5f);
    logit.assign(size, 0.0f);
    counts.assign(size, 0);
  }
  void update(std::size_t at, int bit, int limit) {
    const float rate = 1.0f / (static_cast<float>(counts[at]) + 1.6f);
    if (counts[at] < limit) ++counts[at];
    float now = p[at] + (static_cast<float>(bit) - p[at]) * rate;
    now = now < 0.0005f ? 0.0005f : now > 0.9995f ? 0.9995f : now;
    p[at] = now;
    logit[at] = stretch(now);
  }
  template <class Walk>
  void walk(Walk& walk) {
    walk("p", p);
    walk("logit", logit);
    walk("counts", counts);
  }
  void check(std::size_t size) const {
    online::require(p.size() == size && logit.size() == size && counts.size() == size, "tables of another size");
    online::require_finite(logit, "a probability is not finite");
    for (const float value : p) online::require(value > 0.0f && value < 1.0f, "a probability is none");
  }
};

// Lists of one order. A slot: a check of 16 bits, then `width` pairs of a byte and its count, the latest first; a count of 0 ends it.
class Lists {
 public:
  Lists(int bits, int width) : bits_(bits), width_(width) { slots_.assign((std::size_t{1} << bits) * stride(), 0); }

  // Find the context; where there is none, what `claim` takes.
  void seek(std::uint64_t hash) {
    hash *= 0x9e3779b97f4a7c15ULL;
    check_ = static_cast<std::uint16_t>((hash & 0xffff) | 1);
    place_ = static_cast<std::size_t>(hash >> (64 - bits_));
    found_ = false;
    for (const std::size_t other : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
      if (check_of(slot(place_ ^ other)) == check_) {
        place_ ^= other;
        found_ = true;
        return;
      }
    }
  }

  // Pairs of a byte and its count, `width` of them; null where nothing has followed this context.
  const std::uint8_t* pairs() const { return found_ ? slots_.data() + place_ * stride() + 2 : nullptr; }
  int width() const { return width_; }

  void update(std::uint8_t byte) {
    if (!found_) claim();
    std::uint8_t* pairs = slots_.data() + place_ * stride() + 2;
    int at = 0;
    while (at < width_ && pairs[2 * at + 1] && pairs[2 * at] != byte) ++at;
    int count = 0;
    if (at < width_ && pairs[2 * at + 1]) count = pairs[2 * at + 1];
    if (at == width_) {  // the rarest makes room, of two alike the older
      at = width_ - 1;
      for (int k = width_ - 1; k >= 0; --k)
        if (pairs[2 * k + 1] < pairs[2 * at + 1]) at = k;
    }
    for (int k = 0; k < width_; ++k) {
      if (k == at) continue;
      const int other = pairs[2 * k + 1];
      if (other > kUnit) pairs[2 * k + 1] = static_cast<std::uint8_t>(other - ((other - kUnit / 2) * kFade >> 8));
    }
    for (int k = at; k > 0; --k) {
      pairs[2 * k] = pairs[2 * k - 2];
      pairs[2 * k + 1] = pairs[2 * k - 1];
    }
    pairs[0] = byte;
    pairs[1] = static_cast<std::uint8_t>(count + kUnit > 255 ? 255 : count + kUnit);
  }

  template <class Walk>
  void walk(Walk& walk) {
    walk("slots", slots_);
  }
  void check() const { online::require(slots_.size() == (std::size_t{1} << bits_) * stride(), "tables of another size"); }

  static constexpr int kUnit = 12;  // of a count: one time

 private:
  static constexpr int kFade = 16;  // of 256: what others lose

  std::size_t stride() const { return 2 + 2 * static_cast<std::size_t>(width_); }
  const std::uint8_t* slot(std::size_t place) const { return slots_.data() + place * stride(); }
  static std::uint16_t check_of(const std::uint8_t* slot) { return static_cast<std::uint16_t>(slot[0] | (slot[1] << 8)); }
  int weight(const std::uint8_t* slot) const {
    int total = 0;
    for (int k = 0; k < width_; ++k) total += slot[3 + 2 * k];
    return total;
  }

  // The lightest of three slots makes room.
  void claim() {
    std::size_t best = place_;
    int least = 1 << 30;
    for (const std::size_t other : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
      const int found = weight(slot(place_ ^ other));
      if (found < least) {
        least = found;
        best = place_ ^ other;
      }
    }
    place_ = best;
    found_ = true;
    std::uint8_t* at = slots_.data() + place_ * stride();
    std::fill(at, at + stride(), std::uint8_t{0});
    at[0] = static_cast<std::uint8_t>(check_ & 255);
    at[1] = static_cast<std::uint8_t>(check_ >> 8);
  }

  int bits_, width_;
  std::vector<std::uint8_t> slots_;
  std::uint16_t check_ = 0;
  std::size_t place_ = 0;
  bool found_ = false;
};

}  // namespace language
