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

// From `other`, where the factor is 0, through the byte itself, where it is 1 (65536), and beyond.
inline Byte blend(std::int32_t other, std::int32_t byte, std::int32_t factor) {
  return clipped((other * 65536 + factor * (byte - other) + 32768) >> 16);
}

// A place outside 0 to size - 1 reflected at the outermost pixels, as often as it takes.
inline int mirrored(std::int64_t place, int size) {
  if (size == 1) return 0;
  const std::int64_t period = 2 * (static_cast<std::int64_t>(size) - 1);
  std::int64_t folded = place % period;
  if (folded < 0) folded += period;
  return static_cast<int>(std::min(folded, period - folded));
}

}  // namespace images
