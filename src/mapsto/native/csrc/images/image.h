// An image of bytes, plane after plane, and what every step on it needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace images {

using Byte = std::uint8_t;

struct Shape {
  int channels, height, width;
  std::size_t plane() const { return static_cast<std::size_t>(height) * width; }
  std::size_t size() const { return plane() * channels; }
};

// What steps keep between images, so that it is allocated once.
struct Scratch {
  std::vector<Byte> image, chain, bytes;
  std::vector<std::uint16_t> halves;
  std::vector<std::uint32_t> taps, sums;
  std::vector<std::int32_t> places, shares;
};

template <class T>
T* room(std::vector<T>& vector, std::size_t size) {
  if (vector.size() < size) vector.resize(size);
  return vector.data();
}

inline Byte clipped(std::int32_t value) { return static_cast<Byte>(std::clamp(value, 0, 255)); }

// A factor in 1/65536 as `blend` takes it, in 1/16384: below 2, so that 16 bits hold it.
inline std::int16_t halved(std::int32_t factor) { return static_cast<std::int16_t>(std::clamp((factor + 2) >> 2, 0, 32767)); }

// From `other`, where the factor is 0, through the byte itself, where it is 1 (16384), and beyond. Written so that compilers find the one
// instruction that multiplies 16 bits and rounds.
inline Byte blend(std::int16_t other, std::int16_t byte, std::int16_t factor) {
  const std::int16_t twice = static_cast<std::int16_t>(2 * (byte - other));
  const std::int16_t part = static_cast<std::int16_t>(((static_cast<std::int32_t>(twice) * factor >> 14) + 1) >> 1);
  const std::int16_t sum = static_cast<std::int16_t>(other + part);
  return static_cast<Byte>(std::clamp<std::int16_t>(sum, 0, 255));
}

// Pixels that are taken at once, from a copy, so that a step may work in place and yet on many pixels at a time.
constexpr std::size_t kBlock = 512;

template <class Change>
void by_block(const Byte* in, Byte* out, std::size_t size, Change change) {
  Byte block[kBlock];
  for (std::size_t from = 0; from < size; from += kBlock) {
    const std::size_t count = std::min(kBlock, size - from);
    std::memcpy(block, in + from, count);
    Byte* to = out + from;
    for (std::size_t i = 0; i < count; ++i) to[i] = change(block[i]);
  }
}

// A place outside 0 to size - 1 reflected at the outermost pixels, as often as it takes.
inline int mirrored(std::int64_t place, int size) {
  if (size == 1) return 0;
  if (place < 0 && place > -size) return static_cast<int>(-place);
  if (place >= 0 && place < 2 * (static_cast<std::int64_t>(size) - 1))
    return static_cast<int>(place < size ? place : 2 * (static_cast<std::int64_t>(size) - 1) - place);
  const std::int64_t period = 2 * (static_cast<std::int64_t>(size) - 1);
  std::int64_t folded = place % period;
  if (folded < 0) folded += period;
  return static_cast<int>(std::min(folded, period - folded));
}

}  // namespace images
