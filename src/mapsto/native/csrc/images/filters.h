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
  const std::int16_t times = halved(factor);
  const std::size_t plane = shape.plane(), last = plane - width;
  std::uint16_t* __restrict sums = room(scratch.halves, plane);
  for (int c = 0; c < shape.channels; ++c, in += plane, out += plane) {
    // rows are taken as one line, and what runs over the ends of a row is mended
    for (std::size_t i = width; i < last; ++i) sums[i] = static_cast<std::uint16_t>(in[i - width] + in[i] + in[i + width]);
    for (std::size_t i = width + 1; i < last - 1; ++i) {
      const std::uint16_t sum = static_cast<std::uint16_t>(sums[i - 1] + sums[i] + sums[i + 1] + 4 * in[i] + 6);
      const std::uint16_t smooth = static_cast<std::uint16_t>(static_cast<std::uint32_t>(sum) * 5042 >> 16);  // / 13, up to 13 * 255
      out[i] = blend(static_cast<std::int16_t>(smooth), in[i], times);
    }
    std::memcpy(out, in, width);
    std::memcpy(out + last, in + last, width);
    for (std::size_t row = width; row < last; row += width) {
      out[row] = in[row];
      out[row + width - 1] = in[row + width - 1];
    }
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
