// Augmentation of images of bytes behind a C interface: each image goes through its own row of a table of steps, drawn by the caller.
//
// All arithmetic is of whole numbers, so that every processor gives the same bytes, and so does `mapsto/data/augment/_by_torch.py`.

#include <cstdint>
#include <new>

#include "images/filters.h"
#include "images/geometric.h"
#include "images/image.h"
#include "images/pointwise.h"

#if defined(_WIN32)
#define MAPSTO_API extern "C" __declspec(dllexport)
#else
#define MAPSTO_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

using namespace images;

// As `Code` in `mapsto/data/augment/_steps.py`.
enum Code : std::int32_t {
  kKeep, kFlip, kFlipVertically, kShift, kAffine, kTranslate, kInvert, kSolarize, kPosterize, kBrightness, kContrast,
  kColor, kSharpness, kAutocontrast, kEqualize, kHue, kBlur, kBox, kGrid, kWarp,
};

constexpr int kNumbers = 8;  // of a step: its code, and up to seven more

// Shares of a side, in 1/65536, as whole pixels.
int pixels(std::int32_t share, int side) { return static_cast<int>((static_cast<std::int64_t>(share) * side + 32768) >> 16); }

// The first pixel whose middle is not before a share of the side.
int first_from(std::int32_t share, int side) {
  const std::int64_t place = static_cast<std::int64_t>(share) * side;
  return static_cast<int>(std::clamp<std::int64_t>((place + 32767) >> 16, 0, side));
}

// Squares that come again and again, painted: the cell's side, the part of it that stays, and offsets, in 1/65536 of a pixel or of the cell.
void grid(Byte* out, Shape shape, const std::int32_t* p, Byte fill, Scratch& scratch) {
  const std::int64_t cell = std::max<std::int64_t>(static_cast<std::int64_t>(p[0]) * std::min(shape.height, shape.width), 1);
  auto painted = [&](int place, std::int32_t offset) {
    const std::int64_t within = (static_cast<std::int64_t>(2 * place + 1) * 32768 + (cell * offset >> 16)) % cell;
    return within * 65536 >= cell * p[1];
  };
  Byte* columns = room(scratch.bytes, shape.width);
  for (int j = 0; j < shape.width; ++j) columns[j] = painted(j, p[3]);
  for (int i = 0; i < shape.height; ++i) {
    if (!painted(i, p[2])) continue;
    for (int c = 0; c < shape.channels; ++c) {
      Byte* row = out + c * shape.plane() + static_cast<std::size_t>(i) * shape.width;
      for (int j = 0; j < shape.width; ++j) row[j] = columns[j] ? fill : row[j];
    }
  }
}

bool in_place(std::int32_t code) { return (code >= kInvert && code <= kColor) || (code >= kAutocontrast && code <= kHue) || code == kBox || code == kGrid; }

void take(const std::int32_t* step, const std::int32_t* pool, const Byte* in, Byte* out, Shape shape, Scratch& scratch) {
  const std::int32_t* p = step + 1;
  const std::int32_t fill = step[7];
  const std::size_t size = shape.size();
  switch (step[0]) {
    case kFlip: return flip(in, out, shape);
    case kFlipVertically: return flip_vertically(in, out, shape);
    case kShift: return shift(in, out, shape, p[0], p[1]);
    case kAffine: return affine(in, out, shape, p, fill, scratch);
    case kTranslate: return translate(in, out, shape, pixels(p[0], shape.height), pixels(p[1], shape.width), fill);
    case kInvert: return invert(in, out, size);
    case kSolarize: return solarize(in, out, size, p[0]);
    case kPosterize: return posterize(in, out, size, p[0]);
    case kBrightness: return away_from(in, out, size, 0, p[0]);
    case kContrast: return away_from(in, out, size, mean_grey(in, shape), p[0]);
    case kColor: return color(in, out, shape, p[0]);
    case kSharpness: return sharpness(in, out, shape, p[0], scratch);
    case kAutocontrast: return autocontrast(in, out, shape);
    case kEqualize: return equalize(in, out, shape);
    case kHue: return hue(in, out, shape, p[0]);
    case kBlur: return blur(in, out, shape, pool + p[0], p[1], scratch);
    case kWarp: return warp(in, out, shape, pool + p[0], scratch);
    default: break;
  }
  if (in != out) std::memcpy(out, in, size);
  if (step[0] == kBox)
    box(out, shape, first_from(p[0], shape.height), first_from(p[1], shape.width), first_from(p[2], shape.height),
        first_from(p[3], shape.width), static_cast<Byte>(fill));
  if (step[0] == kGrid) grid(out, shape, p, static_cast<Byte>(fill), scratch);
}

// One image through its steps; `other` is room for one more.
void through(const Byte* in, Byte* out, Byte* other, Shape shape, const std::int32_t* steps, int count, const std::int32_t* pool, Scratch& scratch) {
  int moves = 0;  // from one place to another; the last one must end in `out`
  for (int k = 0; k < count; ++k) {
    const std::int32_t code = steps[k * kNumbers];
    moves += code != kKeep && (moves == 0 || !in_place(code));
  }
  if (moves == 0) std::memcpy(out, in, shape.size());
  const Byte* from = in;
  Byte* next = moves % 2 ? out : other;
  for (int k = 0; k < count; ++k, steps += kNumbers) {
    if (steps[0] == kKeep) continue;
    if (from != in && in_place(steps[0])) {
      take(steps, pool, from, const_cast<Byte*>(from), shape, scratch);
      continue;
    }
    take(steps, pool, from, next, shape, scratch);
    from = next;
    next = next == out ? other : out;
  }
}

Scratch& scratch_of_thread() {
  static thread_local Scratch scratch;
  return scratch;
}

}  // namespace

// Images (count, C, H, W), each through its own steps (count, steps, 8). 1 where it is done, 0 where memory does not suffice.
MAPSTO_API int mapsto_images_change(const std::uint8_t* in, std::uint8_t* out, std::int64_t count, int channels, int height, int width, const std::int32_t* table, int steps, const std::int32_t* pool) try {
  const Shape shape{channels, height, width};
  Scratch& scratch = scratch_of_thread();
  Byte* other = room(scratch.image, shape.size());
  for (std::int64_t n = 0; n < count; ++n, in += shape.size(), out += shape.size(), table += kNumbers * steps)
    through(in, out, other, shape, table, steps, pool, scratch);
  return 1;
} catch (const std::bad_alloc&) {
  return 0;
}

// Each image blended with what chains of steps (count, chains, steps, 8) make of it: `shares` (count, 1 + chains), in 1/65536, the image's own first.
MAPSTO_API int mapsto_images_blend(const std::uint8_t* in, std::uint8_t* out, std::int64_t count, int channels, int height, int width, const std::int32_t* table, int chains, int steps, const std::int32_t* pool, const std::int32_t* shares) try {
  const Shape shape{channels, height, width};
  const std::size_t size = shape.size();
  Scratch& scratch = scratch_of_thread();
  Byte *other = room(scratch.image, size), *chain = room(scratch.chain, size);
  std::vector<std::uint32_t> sums(size);
  for (std::int64_t n = 0; n < count; ++n, in += size, out += size, shares += 1 + chains) {
    for (std::size_t i = 0; i < size; ++i) sums[i] = 32768u + static_cast<std::uint32_t>(shares[0]) * in[i];
    for (int k = 0; k < chains; ++k, table += kNumbers * steps) {
      through(in, chain, other, shape, table, steps, pool, scratch);
      const std::uint32_t share = static_cast<std::uint32_t>(shares[1 + k]);
      for (std::size_t i = 0; i < size; ++i) sums[i] += share * chain[i];
    }
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<Byte>(sums[i] >> 16);
  }
  return 1;
} catch (const std::bad_alloc&) {
  return 0;
}
