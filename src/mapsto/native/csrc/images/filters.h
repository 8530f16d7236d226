// Steps that weigh each pixel with its neighbours. None works in place.
#pragma once

#include "image.h"

namespace images {

// Away from, or towards, the mean of the 3 x 3 pixels around, in which the middle counts five times; the outermost pixels stay, as in Pillow.
inline void sharpness(const Byte* __restrict in, Byte* __restrict out, Shape shape, std::int32_t factor, Scratch& scratch) {
  const int width = shape.width, height = shape.height;
  if (width < 3 || height < 3) {
    std::memcpy(out, in, shape.size());
    return;
  }
  std::uint16_t* __restrict sums = room(scratch.halves, width);
  for (int c = 0; c < shape.channels; ++c, in += shape.plane(), out += shape.plane()) {
    std::memcpy(out, in, width);
    for (int i = 1; i < height - 1; ++i) {
      const Byte *up = in + static_cast<std::size_t>(i - 1) * width, *row = up + width, *down = row + width;
      Byte* __restrict to = out + static_cast<std::size_t>(i) * width;
      for (int j = 0; j < width; ++j) sums[j] = static_cast<std::uint16_t>(up[j] + row[j] + down[j]);
      to[0] = row[0];
      for (int j = 1; j < width - 1; ++j) {
        const std::uint32_t sum = sums[j - 1] + sums[j] + sums[j + 1] + 4u * row[j];
        const std::int32_t smooth = static_cast<std::int32_t>((sum + 6) * 5042 >> 16);  // / 13, for sums of at most 13 * 255
        to[j] = blend(smooth, row[j], factor);
      }
      to[width - 1] = row[width - 1];
    }
    const std::size_t last = shape.plane() - width;
    std::memcpy(out + last, in + last, width);
  }
}

// Weigh each pixel with those up to `radius` away, along rows and then columns; weights from the middle on, the whole kernel's sum is 16384.
inline void blur(const Byte* __restrict in, Byte* __restrict out, Shape shape, const std::int32_t* weights, int radius, Scratch& scratch) {
  const int width = shape.width, height = shape.height;
  Byte* __restrict bordered = room(scratch.bytes, width + 2 * static_cast<std::size_t>(radius));
  std::uint32_t* __restrict sums = room(scratch.sums, width);
  std::uint16_t* halves = room(scratch.halves, shape.plane());
  for (int c = 0; c < shape.channels; ++c, in += shape.plane(), out += shape.plane()) {
    for (int i = 0; i < height; ++i) {
      const Byte* row = in + static_cast<std::size_t>(i) * width;
      for (int k = 0; k < radius; ++k) {
        bordered[k] = row[mirrored(k - radius, width)];
        bordered[radius + width + k] = row[mirrored(static_cast<std::int64_t>(width) + k, width)];
      }
      std::memcpy(bordered + radius, row, width);
      const Byte* middle = bordered + radius;
      for (int j = 0; j < width; ++j) sums[j] = 128u + static_cast<std::uint32_t>(weights[0]) * middle[j];
      for (int k = 1; k <= radius; ++k) {
        const std::uint32_t weight = static_cast<std::uint32_t>(weights[k]);
        const Byte *left = middle - k, *right = middle + k;
        for (int j = 0; j < width; ++j) sums[j] += weight * (left[j] + right[j]);
      }
      std::uint16_t* to = halves + static_cast<std::size_t>(i) * width;
      for (int j = 0; j < width; ++j) to[j] = static_cast<std::uint16_t>(sums[j] >> 8);
    }
    for (int i = 0; i < height; ++i) {
      const std::uint16_t* row = halves + static_cast<std::size_t>(i) * width;
      for (int j = 0; j < width; ++j) sums[j] = (1u << 19) + static_cast<std::uint32_t>(weights[0]) * row[j];
      for (int k = 1; k <= radius; ++k) {
        const std::uint32_t weight = static_cast<std::uint32_t>(weights[k]);
        const std::uint16_t* up = halves + static_cast<std::size_t>(mirrored(static_cast<std::int64_t>(i) - k, height)) * width;
        const std::uint16_t* down = halves + static_cast<std::size_t>(mirrored(static_cast<std::int64_t>(i) + k, height)) * width;
        for (int j = 0; j < width; ++j) sums[j] += weight * (static_cast<std::uint32_t>(up[j]) + down[j]);
      }
      Byte* to = out + static_cast<std::size_t>(i) * width;
      for (int j = 0; j < width; ++j) to[j] = static_cast<Byte>(sums[j] >> 20);
    }
  }
}

}  // namespace images
