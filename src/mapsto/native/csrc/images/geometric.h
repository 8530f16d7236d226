// Steps that move pixels. None works in place.
#pragma once

#include "image.h"

namespace images {

inline void flip(const Byte* __restrict in, Byte* __restrict out, Shape shape) {
  const std::size_t rows = static_cast<std::size_t>(shape.channels) * shape.height;
  const int width = shape.width;
  for (std::size_t row = 0; row < rows; ++row, in += width, out += width)
    for (int j = 0; j < width; ++j) out[j] = in[width - 1 - j];
}

inline void flip_vertically(const Byte* __restrict in, Byte* __restrict out, Shape shape) {
  const std::size_t width = shape.width;
  for (int c = 0; c < shape.channels; ++c)
    for (int i = 0; i < shape.height; ++i)
      std::memcpy(out + c * shape.plane() + i * width, in + c * shape.plane() + (shape.height - 1 - i) * width, width);
}

// The image from `down` rows and `across` columns further on, mirrored beyond its border.
inline void shift(const Byte* __restrict in, Byte* __restrict out, Shape shape, int down, int across) {
  const int width = shape.width;
  const int height = shape.height;
  const int first = std::clamp(-across, 0, width), last = std::clamp(width - across, first, width);
  const int top = std::clamp(-down, 0, height), bottom = std::clamp(height - down, top, height);
  for (int c = 0; c < shape.channels; ++c, in += shape.plane(), out += shape.plane()) {
    // rows that lie within the image lie one after the other in both: all are moved at once, and their ends are mended
    if (first < last && top < bottom) {
      const std::size_t size = static_cast<std::size_t>(bottom - top - 1) * width + (last - first);
      std::memcpy(out + static_cast<std::size_t>(top) * width + first, in + static_cast<std::size_t>(top + down) * width + first + across, size);
    }
    for (int j = 0; j < width; ++j) {
      if (j == first && first < last) j = last;
      if (j == width) break;
      const int from = mirrored(static_cast<std::int64_t>(j) + across, width);
      for (int i = top; i < bottom; ++i) out[static_cast<std::size_t>(i) * width + j] = in[static_cast<std::size_t>(i + down) * width + from];
    }
    for (int i = 0; i < height; ++i) {
      if (i >= top && i < bottom) continue;
      const int row = mirrored(static_cast<std::int64_t>(i) + down, height);
      Byte* to = out + static_cast<std::size_t>(i) * width;
      if (row - down >= top && row - down < bottom) {
        std::memcpy(to, out + static_cast<std::size_t>(row - down) * width, width);
      } else {
        for (int j = 0; j < width; ++j) to[j] = in[static_cast<std::size_t>(row) * width + mirrored(static_cast<std::int64_t>(j) + across, width)];
      }
    }
  }
}

// Beyond its border an image goes on with one grey level; a negative one stands for its outermost pixels.

// The image from whole numbers of rows and columns further on.
inline void translate(const Byte* __restrict in, Byte* __restrict out, Shape shape, int down, int across, std::int32_t fill) {
  const int width = shape.width;
  const int first = std::clamp(-across, 0, width), last = std::clamp(width - across, first, width);
  for (int c = 0; c < shape.channels; ++c, in += shape.plane())
    for (int i = 0; i < shape.height; ++i, out += width) {
      const int from = i + down;
      if (fill >= 0 && (from < 0 || from >= shape.height)) {
        std::memset(out, fill, width);
        continue;
      }
      const Byte* row = in + static_cast<std::size_t>(std::clamp(from, 0, shape.height - 1)) * width;
      std::memset(out, fill >= 0 ? fill : row[0], first);
      if (first < last) std::memcpy(out + first, row + first + across, last - first);
      std::memset(out + last, fill >= 0 ? fill : row[width - 1], width - last);
    }
}

// Every pixel with its right, lower and lower right neighbour, one in a byte each, from a row and a column before the image to those after it.
inline void fill_taps(const Byte* plane, Shape shape, std::int32_t fill, Byte* bordered, std::uint32_t* taps) {
  const int width = shape.width, stride = width + 2;
  auto row_of = [&](int row, Byte* to) {
    const bool within = row >= 0 && row < shape.height;
    if (!within && fill >= 0) {
      std::memset(to, fill, stride + 1);
      return;
    }
    const Byte* from = plane + static_cast<std::size_t>(std::clamp(row, 0, shape.height - 1)) * width;
    to[0] = fill >= 0 ? static_cast<Byte>(fill) : from[0];
    std::memcpy(to + 1, from, width);
    to[width + 1] = to[width + 2] = fill >= 0 ? static_cast<Byte>(fill) : from[width - 1];
  };
  Byte *upper = bordered, *lower = bordered + stride + 1;
  row_of(-1, upper);
  for (int row = 0; row <= shape.height + 1; ++row, taps += stride, std::swap(upper, lower)) {
    row_of(row, lower);
    const Byte* __restrict above = upper;
    const Byte* __restrict below = lower;
    std::uint32_t* __restrict made = taps;
    for (int j = 0; j < stride; ++j)
      made[j] = above[j] | static_cast<std::uint32_t>(above[j + 1]) << 8 | static_cast<std::uint32_t>(below[j]) << 16 |
                static_cast<std::uint32_t>(below[j + 1]) << 24;
  }
}

// Four pixels weighed by the 256ths of the way to the right (low byte of `share`) and down (the byte above it).
inline Byte bilinear(std::uint32_t four, std::uint32_t share) {
  const std::uint32_t right = share & 255, down = share >> 8;
  const std::uint32_t both = (four & 0x00ff00ffu) * (256 - right) + ((four >> 8) & 0x00ff00ffu) * right;
  return static_cast<Byte>(((both & 0xffff) * (256 - down) + (both >> 16) * down + 32768) >> 16);
}

inline void sample(const std::uint32_t* taps, const std::int32_t* __restrict places, const std::int32_t* __restrict shares, std::size_t count, Byte* __restrict out) {
  for (std::size_t j = 0; j < count; ++j) out[j] = bilinear(taps[places[j]], static_cast<std::uint32_t>(shares[j]));
}

// Rows that only slide: x(i, j) = j + x0(i), with one share for a row.
inline void slide(const Byte* __restrict row, Byte* __restrict out, int width, std::int64_t x, std::int32_t fill, Byte* __restrict bordered) {
  const std::int64_t rounded = (x + 128) >> 8;
  const std::int64_t whole = rounded >> 8;
  const std::int32_t right = static_cast<std::int32_t>(rounded & 255);
  const int from = static_cast<int>(std::clamp<std::int64_t>(whole, -width - 1, width));
  const Byte before = fill >= 0 ? static_cast<Byte>(fill) : row[0], after = fill >= 0 ? static_cast<Byte>(fill) : row[width - 1];
  const int first = std::clamp(-from, 0, width + 1), last = std::clamp(width - from, first, width + 1);
  std::memset(bordered, before, first);
  if (first < last) std::memcpy(bordered + first, row + from + first, last - first);
  std::memset(bordered + last, after, width + 1 - last);
  const std::uint16_t here = static_cast<std::uint16_t>(256 - right), beside = static_cast<std::uint16_t>(right);
  for (int j = 0; j < width; ++j)
    out[j] = static_cast<Byte>(static_cast<std::uint16_t>(bordered[j] * here + bordered[j + 1] * beside + 128) >> 8);
}

// Where a row of the result reads, as places in the table of taps and shares: from (x, y) on, in 1/65536 of a pixel, by steps of (a, c).
template <class Whole>
void line_of_places(Whole x, Whole y, Whole a, Whole c, Shape shape, bool edge, std::int32_t* __restrict places, std::int32_t* __restrict shares) {
  const Whole least = edge ? 0 : -256, right = (shape.width - edge) * 256, bottom = (shape.height - edge) * 256;
  const int stride = shape.width + 2;
  for (int j = 0; j < shape.width; ++j) {
    const Whole column = std::clamp<Whole>((x + j * a) >> 8, least, right) + 256, row = std::clamp<Whole>((y + j * c) >> 8, least, bottom) + 256;
    places[j] = static_cast<std::int32_t>((row >> 8) * stride + (column >> 8));
    shares[j] = static_cast<std::int32_t>((column & 255) | (row & 255) << 8);
  }
}

// The image under the map with the rows (a, b) and (c, d), in 1/65536, about its centre, then shifted by shares of its sides.
inline void affine(const Byte* in, Byte* out, Shape shape, const std::int32_t* p, std::int32_t fill, Scratch& scratch) {
  const std::int64_t a = p[0], b = p[1], c = p[2], d = p[3];
  const int height = shape.height, width = shape.width;
  const std::size_t plane = shape.plane();
  const std::int64_t wide = width - 1, high = height - 1;
  const std::int64_t across = static_cast<std::int64_t>(p[4]) * width, down = static_cast<std::int64_t>(p[5]) * height;
  auto x_of = [&](int i) { return ((-a * wide + b * (2 * static_cast<std::int64_t>(i) - high) + wide * 65536) >> 1) + across; };
  auto y_of = [&](int i) { return ((-c * wide + d * (2 * static_cast<std::int64_t>(i) - high) + high * 65536) >> 1) + down; };
  if (a == 65536 && c == 0 && d == 65536 && down == 0) {
    Byte* bordered = room(scratch.bytes, width + 1);
    for (int i = 0; i < height; ++i)
      for (int channel = 0; channel < shape.channels; ++channel) {
        const std::size_t at = channel * plane + static_cast<std::size_t>(i) * width;
        slide(in + at, out + at, width, x_of(i), fill, bordered);
      }
    return;
  }
  std::int32_t *places = room(scratch.places, plane), *shares = room(scratch.shares, plane);
  const std::int64_t largest = (std::max({std::abs(a), std::abs(b), std::abs(c), std::abs(d)}) + 65536) * (wide + high + 1) + std::abs(across) + std::abs(down);
  for (int i = 0; i < height; ++i) {
    const std::int64_t x = x_of(i) + 128, y = y_of(i) + 128;
    const std::size_t at = static_cast<std::size_t>(i) * width;
    if (largest < (1 << 30))
      line_of_places<std::int32_t>(static_cast<std::int32_t>(x), static_cast<std::int32_t>(y), p[0], p[2], shape, fill < 0, places + at, shares + at);
    else
      line_of_places<std::int64_t>(x, y, a, c, shape, fill < 0, places + at, shares + at);
  }
  std::uint32_t* taps = room(scratch.taps, static_cast<std::size_t>(width + 2) * (height + 2));
  Byte* bordered = room(scratch.bytes, 2 * (static_cast<std::size_t>(width) + 3));
  for (int channel = 0; channel < shape.channels; ++channel) {
    fill_taps(in + channel * plane, shape, fill, bordered, taps);
    sample(taps, places, shares, plane, out + channel * plane);
  }
}

// Each pixel from where a field (2, H, W) of rows and columns, in 1/256 of a pixel, says.
inline void warp(const Byte* in, Byte* out, Shape shape, const std::int32_t* field, Scratch& scratch) {
  const std::size_t plane = shape.plane();
  const int stride = shape.width + 2, height = shape.height, width = shape.width;
  std::uint32_t* taps = room(scratch.taps, static_cast<std::size_t>(stride) * (height + 2));
  Byte* bordered = room(scratch.bytes, 2 * (static_cast<std::size_t>(width) + 3));
  std::int32_t *places = room(scratch.places, plane), *shares = room(scratch.shares, plane);
  for (int i = 0; i < height; ++i)
    for (int j = 0; j < width; ++j) {
      const std::size_t at = static_cast<std::size_t>(i) * width + j;
      const std::int32_t y = std::clamp(i * 256 + field[at], 0, (height - 1) * 256) + 256;
      const std::int32_t x = std::clamp(j * 256 + field[plane + at], 0, (width - 1) * 256) + 256;
      places[at] = (y >> 8) * stride + (x >> 8);
      shares[at] = (x & 255) | (y & 255) << 8;
    }
  for (int channel = 0; channel < shape.channels; ++channel) {
    fill_taps(in + channel * plane, shape, -1, bordered, taps);
    sample(taps, places, shares, plane, out + channel * plane);
  }
}

}  // namespace images
