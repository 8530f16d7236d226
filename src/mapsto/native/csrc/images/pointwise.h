// Steps that change each pixel by its own value, and by what is counted over the whole image. Each may work in place.
#pragma once

#include "image.h"

namespace images {

inline void invert(const Byte* in, Byte* out, std::size_t size) {
  by_block(in, out, size, [](Byte value) { return static_cast<Byte>(255 - value); });
}

inline void solarize(const Byte* in, Byte* out, std::size_t size, std::int32_t threshold) {
  if (threshold > 255) {
    if (in != out) std::memcpy(out, in, size);
    return;
  }
  const Byte least = static_cast<Byte>(std::max(threshold, 0));
  by_block(in, out, size, [least](Byte value) { return static_cast<Byte>(value >= least ? 255 - value : value); });
}

inline void posterize(const Byte* in, Byte* out, std::size_t size, std::int32_t bits) {
  const Byte mask = static_cast<Byte>(0xff00 >> std::clamp(bits, 0, 8));
  by_block(in, out, size, [mask](Byte value) { return static_cast<Byte>(value & mask); });
}

// Brightness where the grey level is 0, contrast where it is the image's mean.
inline void away_from(const Byte* in, Byte* out, std::size_t size, std::int32_t grey, std::int32_t factor) {
  const std::int16_t level = static_cast<std::int16_t>(grey), times = halved(factor);
  by_block(in, out, size, [level, times](Byte value) { return blend(level, value, times); });
}

// How light colours look to the eye (ITU-R 601), as Pillow has it.
inline std::int32_t luma(std::int32_t red, std::int32_t green, std::int32_t blue) {
  return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
}

inline std::int32_t mean_grey(const Byte* in, Shape shape) {
  const std::size_t plane = shape.plane();
  std::int64_t sum = 0;
  if (shape.channels == 3) {
    const Byte *red = in, *green = in + plane, *blue = in + 2 * plane;
    for (std::size_t from = 0; from < plane; from += 65536) {
      std::int32_t part = 0;
      const std::size_t to = std::min(plane, from + 65536);
      for (std::size_t i = from; i < to; ++i) part += luma(red[i], green[i], blue[i]);
      sum += part;
    }
    return static_cast<std::int32_t>((2 * sum + static_cast<std::int64_t>(plane)) / (2 * static_cast<std::int64_t>(plane)));
  }
  const std::int64_t size = static_cast<std::int64_t>(shape.size());
  for (std::int64_t i = 0; i < size; ++i) sum += in[i];
  return static_cast<std::int32_t>((2 * sum + size) / (2 * size));
}

inline void color(const Byte* in, Byte* out, Shape shape, std::int32_t factor) {
  const std::size_t plane = shape.plane();
  if (shape.channels != 3) {
    if (in != out) std::memcpy(out, in, shape.size());
    return;
  }
  const std::int16_t times = halved(factor);
  Byte block[3][kBlock];
  std::int16_t grey[kBlock];
  for (std::size_t from = 0; from < plane; from += kBlock) {
    const std::size_t count = std::min(kBlock, plane - from);
    for (int c = 0; c < 3; ++c) std::memcpy(block[c], in + c * plane + from, count);
    for (std::size_t i = 0; i < count; ++i) grey[i] = static_cast<std::int16_t>(luma(block[0][i], block[1][i], block[2][i]));
    for (int c = 0; c < 3; ++c) {
      Byte* to = out + c * plane + from;
      for (std::size_t i = 0; i < count; ++i) to[i] = blend(grey[i], block[c][i], times);
    }
  }
}

// 2^20 / d for each spread d of a pixel's colours, rounded down.
inline const std::int32_t* reciprocals() {
  static const std::vector<std::int32_t> table = [] {
    std::vector<std::int32_t> made(256, 0);
    for (int d = 1; d < 256; ++d) made[d] = (1 << 20) / d;
    return made;
  }();
  return table.data();
}

// The hue of pixels turned by `turn`, in 2^-20 of a sixth of the circle.
inline void turn_hue(const Byte* __restrict reds, const Byte* __restrict greens, const Byte* __restrict blues, Byte* __restrict to_red, Byte* __restrict to_green, Byte* __restrict to_blue, std::size_t count, std::int32_t turn) {
  constexpr std::int32_t fine = 1 << 20, circle = 6 * fine;
  const std::int32_t* reciprocal = reciprocals();
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t red = reds[i], green = greens[i], blue = blues[i];
    const std::int32_t most = std::max(std::max(red, green), blue), least = std::min(std::min(red, green), blue), spread = most - least;
    const std::int32_t base = red == most ? 0 : green == most ? 2 : 4;
    const std::int32_t lead = red == most ? green - blue : green == most ? blue - red : red - green;
    std::int32_t angle = base * fine + lead * reciprocal[spread] + turn;  // from -1 sixth on
    angle = angle < 0 ? angle + circle : angle;
    angle = angle >= circle ? angle - circle : angle;
    const std::int32_t sixth = angle >> 20, part = (spread * (angle & (fine - 1)) + fine / 2) >> 20;
    const std::int32_t rising = least + part, falling = most - part;
    to_red[i] = static_cast<Byte>(sixth == 0 || sixth == 5 ? most : sixth == 1 ? falling : sixth == 4 ? rising : least);
    to_green[i] = static_cast<Byte>(sixth == 1 || sixth == 2 ? most : sixth == 3 ? falling : sixth == 0 ? rising : least);
    to_blue[i] = static_cast<Byte>(sixth == 3 || sixth == 4 ? most : sixth == 5 ? falling : sixth == 2 ? rising : least);
  }
}

// Turn the hue by `shift` sixths of the circle, in 1/65536; the largest and the smallest of a pixel's colours stay.
inline void hue(const Byte* in, Byte* out, Shape shape, std::int32_t shift) {
  const std::size_t plane = shape.plane();
  if (shape.channels != 3) {
    if (in != out) std::memcpy(out, in, shape.size());
    return;
  }
  constexpr std::int32_t sixths = 6 * 65536;
  const std::int32_t turn = (shift % sixths + sixths) % sixths * 16;
  Byte block[3][kBlock];
  for (std::size_t from = 0; from < plane; from += kBlock) {
    const std::size_t count = std::min(kBlock, plane - from);
    for (int c = 0; c < 3; ++c) std::memcpy(block[c], in + c * plane + from, count);
    turn_hue(block[0], block[1], block[2], out + from, out + plane + from, out + 2 * plane + from, count, turn);
  }
}

inline void looked_up(const Byte* in, Byte* out, std::size_t size, const Byte* table) {
  std::size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    Byte found[8];
    for (int k = 0; k < 8; ++k) found[k] = table[in[i + k]];
    std::memcpy(out + i, found, 8);
  }
  for (; i < size; ++i) out[i] = table[in[i]];
}

// Stretch each channel so that its darkest pixel is 0 and its brightest 255.
inline void autocontrast(const Byte* in, Byte* out, Shape shape) {
  for (int c = 0; c < shape.channels; ++c, in += shape.plane(), out += shape.plane()) {
    Byte low = 255, high = 0;
    for (std::size_t i = 0; i < shape.plane(); ++i) {
      low = std::min(low, in[i]);
      high = std::max(high, in[i]);
    }
    if (high <= low || (low == 0 && high == 255)) {
      if (in != out) std::memcpy(out, in, shape.plane());
      continue;
    }
    Byte table[256] = {};
    for (int v = low, level = 0, rest = 0; v <= high; ++v, rest += 255) {
      for (; rest >= high - low; rest -= high - low) ++level;
      table[v] = static_cast<Byte>(level);
    }
    looked_up(in, out, shape.plane(), table);
  }
}

// Spread the values of each channel so that all are alike often, as Pillow does.
inline void equalize(const Byte* in, Byte* out, Shape shape) {
  for (int c = 0; c < shape.channels; ++c, in += shape.plane(), out += shape.plane()) {
    std::uint32_t counts[4][256] = {};
    std::size_t i = 0;
    for (; i + 4 <= shape.plane(); i += 4)
      for (int k = 0; k < 4; ++k) ++counts[k][in[i + k]];
    for (; i < shape.plane(); ++i) ++counts[0][in[i]];
    std::uint32_t last = 0;
    for (int v = 0; v < 256; ++v) {
      counts[0][v] += counts[1][v] + counts[2][v] + counts[3][v];
      if (counts[0][v]) last = counts[0][v];
    }
    const std::uint32_t step = (static_cast<std::uint32_t>(shape.plane()) - last) / 255;
    if (step == 0) {
      if (in != out) std::memcpy(out, in, shape.plane());
      continue;
    }
    Byte table[256];
    std::uint32_t rest = step / 2, level = 0;  // of the pixels so far divided by the step
    for (int v = 0; v < 256; ++v) {
      for (; rest >= step && level < 255; rest -= step) ++level;
      table[v] = static_cast<Byte>(level);
      rest += counts[0][v];
    }
    looked_up(in, out, shape.plane(), table);
  }
}

// Paint a box of every channel.
inline void box(Byte* out, Shape shape, int top, int left, int bottom, int right, Byte fill) {
  for (int c = 0; c < shape.channels; ++c)
    for (int row = top; row < bottom; ++row)
      if (left < right) std::memset(out + c * shape.plane() + static_cast<std::size_t>(row) * shape.width + left, fill, right - left);
}

}  // namespace images
