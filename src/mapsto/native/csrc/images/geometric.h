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
  const int first = std::clamp(-across, 0, width), last = std::clamp(width - across, first, width);
  for (int c = 0; c < shape.channels; ++c, in += shape.plane())
    for (int i = 0; i < shape.height; ++i, out += width) {
      const Byte* row = in + static_cast<std::size_t>(mirrored(static_cast<std::int64_t>(i) + down, shape.height)) * width;
      for (int j = 0; j < first; ++j) out[j] = row[mirrored(static_cast<std::int64_t>(j) + across, width)];
      if (first < last) std::memcpy(out + first, row + first + across, last - first);
      for (int j = last; j < width; ++j) out[j] = row[mirrored(static_cast<std::int64_t>(j) + across, width)];
    }
}

// Beyond its border an image goes on with one grey level; a negative one stands for its outermost pixels.
inline Byte beyond(const Byte* plane, Shape shape, int row, int column, std::int32_t fill) {
  const bool within = row >= 0 && row < shape.height && column >= 0 && column < shape.width;
  if (!within && fill >= 0) return static_cast<Byte>(fill);
  return plane[static_cast<std::size_t>(std::clamp(row, 0, shape.height - 1)) * shape.width + std::clamp(column, 0, shape.width - 1)];
}

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

// Where a row of an affine map reads: in 1/65536 of a pixel, in column j at `x + j * a`, `y + j * c`.
struct Line {
  std::int64_t x, y;
};

// Every pixel with its right, lower and lower right neighbour, one in a byte each, of the image with a border of one pixel around it.
inline void fill_taps(const Byte* plane, Shape shape, std::int32_t fill, Byte* bordered, std::uint32_t* taps) {
  const int width = shape.width, stride = width + 2;
  auto row_of = [&](int row, Byte* to) {
    const bool within = row >= 0 && row < shape.height;
    if (!within && fill >= 0) {
      std::memset(to, fill, stride);
      return;
    }
    const Byte* from = plane + static_cast<std::size_t>(std::clamp(row, 0, shape.height - 1)) * width;
    to[0] = fill >= 0 ? static_cast<Byte>(fill) : from[0];
    std::memcpy(to + 1, from, width);
    to[width + 1] = fill >= 0 ? static_cast<Byte>(fill) : from[width - 1];
  };
  row_of(-1, bordered);
  for (int row = 0; row <= shape.height; ++row, taps += width + 1) {
    Byte* __restrict upper = bordered + (row & 1) * stride;
    Byte* __restrict lower = bordered + (1 - (row & 1)) * stride;
    row_of(row, lower);
    std::uint32_t* __restrict made = taps;
    for (int j = 0; j <= width; ++j)
      made[j] = upper[j] | static_cast<std::uint32_t>(upper[j + 1]) << 8 | static_cast<std::uint32_t>(lower[j]) << 16 |
                static_cast<std::uint32_t>(lower[j + 1]) << 24;
  }
}

// Four pixels weighed by the 256ths of the way to the right (low byte of `share`) and down (the byte above it).
inline Byte bilinear(std::uint32_t four, std::uint32_t share) {
  const std::uint32_t right = share & 255, down = share >> 8;
  const std::uint32_t both = (four & 0x00ff00ffu) * (256 - right) + ((four >> 8) & 0x00ff00ffu) * right;
  return static_cast<Byte>(((both & 0xffff) * (256 - down) + (both >> 16) * down + 32768) >> 16);
}

inline void sample(const std::uint32_t* taps, const std::int32_t* __restrict places, const std::int32_t* __restrict shares, int count, Byte* __restrict out) {
  for (int j = 0; j < count; ++j) out[j] = bilinear(taps[places[j]], static_cast<std::uint32_t>(shares[j]));
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
  for (int j = 0; j < width; ++j)
    out[j] = static_cast<Byte>((bordered[j] * (256 - right) + bordered[j + 1] * right + 128) >> 8);
}

// The image under the map with the rows (a, b) and (c, d), in 1/65536, about its centre, then shifted by shares of its sides.
inline void affine(const Byte* in, Byte* out, Shape shape, const std::int32_t* p, std::int32_t fill, Scratch& scratch) {
  const std::int64_t a = p[0], b = p[1], c = p[2], d = p[3];
  const int height = shape.height, width = shape.width;
  const std::size_t plane = shape.plane();
  auto line_of = [&](int i) {
    const std::int64_t row = 2 * static_cast<std::int64_t>(i) - (height - 1), wide = width - 1, high = height - 1;
    return Line{((-a * wide + b * row + wide * 65536) >> 1) + static_cast<std::int64_t>(p[4]) * width,
                ((-c * wide + d * row + high * 65536) >> 1) + static_cast<std::int64_t>(p[5]) * height};
  };
  if (a == 65536 && c == 0 && d == 65536 && p[5] == 0) {
    Byte* bordered = room(scratch.bytes, width + 1);
    for (int i = 0; i < height; ++i)
      for (int channel = 0; channel < shape.channels; ++channel) {
        const std::size_t at = channel * plane + static_cast<std::size_t>(i) * width;
        slide(in + at, out + at, width, line_of(i).x, fill, bordered);
      }
    return;
  }
  const int stride = width + 1;
  const std::size_t table = static_cast<std::size_t>(stride) * (height + 1);
  std::uint32_t* taps = room(scratch.taps, table * shape.channels);
  Byte* bordered = room(scratch.bytes, 2 * (width + 2));
  std::int32_t *places = room(scratch.places, width), *shares = room(scratch.shares, width);
  for (int channel = 0; channel < shape.channels; ++channel)
    fill_taps(in + channel * plane, shape, fill, bordered, taps + channel * table);
  const std::int64_t right = static_cast<std::int64_t>(width) * 256 - (fill >= 0 ? 1 : 256);
  const std::int64_t bottom = static_cast<std::int64_t>(height) * 256 - (fill >= 0 ? 1 : 256);
  const std::int64_t least = fill >= 0 ? -255 : 0;
  for (int i = 0; i < height; ++i) {
    const Line line = line_of(i);
    const std::int64_t x0 = line.x + 128, y0 = line.y + 128;
    auto outside = [&](int j) {
      const std::int64_t x = (x0 + j * a) >> 8, y = (y0 + j * c) >> 8;
      return x < least || x > right || y < least || y > bottom;
    };
    int first = 0, last = width;
    while (first < last && outside(first)) ++first;
    while (last > first && outside(last - 1)) --last;
    if (first < last) {
      // within the image numbers are small; one pixel more to the right and down is there in the table
      const std::int32_t x1 = static_cast<std::int32_t>(x0 + first * a) + 65536, y1 = static_cast<std::int32_t>(y0 + first * c) + 65536;
      const std::int32_t across = static_cast<std::int32_t>(a), down = static_cast<std::int32_t>(c);
      std::int32_t *__restrict place = places + first, *__restrict share = shares + first;
      for (int j = 0; j < last - first; ++j) {
        const std::int32_t x = x1 + j * across, y = y1 + j * down;
        place[j] = (y >> 16) * stride + (x >> 16);
        share[j] = ((x >> 8) & 255) | (y & 0xff00);
      }
    }
    if (fill < 0) {
      auto clamped = [&](int j) {
        const std::int64_t x = std::clamp((x0 + j * a) >> 8, least, right) + 256, y = std::clamp((y0 + j * c) >> 8, least, bottom) + 256;
        places[j] = static_cast<std::int32_t>((y >> 8) * stride + (x >> 8));
        shares[j] = static_cast<std::int32_t>((x & 255) | (y & 255) << 8);
      };
      for (int j = 0; j < first; ++j) clamped(j);
      for (int j = last; j < width; ++j) clamped(j);
      first = 0;
      last = width;
    }
    for (int channel = 0; channel < shape.channels; ++channel) {
      Byte* row = out + channel * plane + static_cast<std::size_t>(i) * width;
      std::memset(row, std::max(fill, 0), first);
      sample(taps + channel * table, places + first, shares + first, last - first, row + first);
      std::memset(row + last, std::max(fill, 0), width - last);
    }
  }
}

// Each pixel from where a field (2, H, W) of rows and columns, in 1/256 of a pixel, says.
inline void warp(const Byte* in, Byte* out, Shape shape, const std::int32_t* field, Scratch& scratch) {
  const std::size_t plane = shape.plane();
  const int stride = shape.width + 1, height = shape.height, width = shape.width;
  std::uint32_t* taps = room(scratch.taps, static_cast<std::size_t>(stride) * (height + 1));
  Byte* bordered = room(scratch.bytes, 2 * (width + 2));
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
    sample(taps, places, shares, static_cast<int>(plane), out + channel * plane);
  }
}

}  // namespace images
