// 3 × 3 convolution with padding 1 and stride 1 or 2, channels-last, as products of matrices whose rows are looked up: no
// patch is copied (Dukhan, "The Indirect Convolution Algorithm", 2019). For the small maps where Winograd's algorithm does not
// gain, and for strides. With its two gradients.
//
// Sums are over a number of chunks that follows from the shapes alone: the result does not depend on the number of threads.

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "tensors.h"
#include "vectors.h"

namespace {

using Index = std::int64_t;

constexpr Index kMany = 144, kBlock = 48;  // places that are worked on at once, and where all of them are read for each row
constexpr Index kDepth = 64;  // rows of a matrix whose columns, as many as are summed at once, stay in the first cache
constexpr Index kSums = 1 << 18;  // bytes of sums that stay in the second cache
constexpr Index kTaps = 9;
constexpr Index kNarrow = 3;  // channels that are too few to be rows of a product

struct Place {
  Index image, row, column;
};

struct Map {
  Index n, h, w;
  Index places() const { return n * h * w; }
  Index blocks(Index block) const { return (places() + block - 1) / block; }
  // The number of a place, or -1 outside.
  Index at(Index image, Index row, Index column) const {
    const bool inside = row >= 0 && row < h && column >= 0 && column < w;
    return inside ? (image * h + row) * w + column : -1;
  }
  // The places of a block; how many there are.
  Index block(Index number, Index most, Place* to) const {
    const Index first = number * most, size = std::min(most, places() - first);
    Place place{first / (w * h), first / w % h, first % w};
    for (Index p = 0; p < size; ++p) {
      to[p] = place;
      if (++place.column < w) continue;
      place.column = 0;
      if (++place.row < h) continue;
      place.row = 0;
      ++place.image;
    }
    return size;
  }
};

// One product of a 3 × 3 kernel: which tap, and where it reads from, by the row and column of where it writes to.
struct Tap {
  Index number, row, column;
};

// R rows and L vectors of columns of c += a[from:] · b with b (depth, L vectors).
template <typename T, int R, int L>
void tile(const T* const* a, Index from, const T* b, Index depth, T* const* c, Index column) {
  using V = typename Lanes<T>::V;
  V sum[R][L];
  const T* row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    row[r] = a[r] + from;
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l) sum[r][l] = load<T>(c[r] + column + l * Lanes<T>::n);
  }
  for (Index k = 0; k < depth; ++k, b += L * Lanes<T>::n) {
    V factor[L];
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l) factor[l] = load<T>(b + l * Lanes<T>::n);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T scalar = row[r][k];
#pragma GCC unroll 8
      for (int l = 0; l < L; ++l) sum[r][l] += scalar * factor[l];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l) store<T>(c[r] + column + l * Lanes<T>::n, sum[r][l]);
}

template <typename T, int L>
void panel(const T* const* a, Index rows, Index from, const T* b, Index depth, T* const* c, Index column) {
  Index r = 0;
  for (; rows - r >= kRows; r += kRows) tile<T, kRows, L>(a + r, from, b, depth, c + r, column);
  for (; rows - r >= 4; r += 4) tile<T, 4, L>(a + r, from, b, depth, c + r, column);
  for (; rows - r >= 2; r += 2) tile<T, 2, L>(a + r, from, b, depth, c + r, column);
  for (; r < rows; ++r) tile<T, 1, L>(a + r, from, b, depth, c + r, column);
}

// Kernels (Co, Ci, 3, 3) of any strides as panels of columns, each (taps, depth, width): of Co columns, or with `back` of Ci.
template <typename T>
std::vector<T> panels(const Tensor& kernel, bool back, const Tap* taps, Index count) {
  const Index depth = kernel.size(back ? 0 : 1), columns = kernel.size(back ? 1 : 0);
  const Index down = kernel.stride(back ? 0 : 1), along = kernel.stride(back ? 1 : 0);
  const T* data = kernel.const_data_ptr<T>();
  std::vector<T> to(count * depth * columns);
  for (Index first = 0; first < columns;) {
    const Index width = columns - first >= kWide * Lanes<T>::n ? kWide * Lanes<T>::n : Lanes<T>::n;
    for (Index k = 0; k < depth; ++k)
      for (Index t = 0; t < count; ++t) {
        const Index row = taps[t].number / 3, column = taps[t].number % 3;
        const T* in = data + k * down + first * along + row * kernel.stride(2) + column * kernel.stride(3);
        T* out = to.data() + (first * count + t * width) * depth + k * width;
        for (Index j = 0; j < width; ++j) out[j] = in[j * along];
      }
    first += width;
  }
  return to;
}

// For the places `from`, `to` of the results: y[to] = Σ over taps of x[from] · panels; every place of `places` has a row in
// `y`, and reads are at (row · stride + tap.row, column · stride + tap.column); those outside are zero and left out. One tap
// after another, so that its matrix stays in the first cache for all places of a block.
template <typename T>
void products(
    const T* x, const Map& from, Index depth, const std::vector<T>& weights, const Tap* taps, Index count, Index stride,
    T* y, const Map& places, const Map& to, Index step, Index top, Index left, Index columns) {
  parallel_for(0, places.blocks(kMany), 1, [&](Index begin, Index end) {
    Place list[kMany];
    T *results[kMany], *writes[kMany];
    const T* reads[kMany];
    for (Index block = begin; block < end; ++block) {
      const Index size = places.block(block, kMany, list);
      for (Index p = 0; p < size; ++p) {
        const auto [image, row, column] = list[p];
        results[p] = y + to.at(image, row * step + top, column * step + left) * columns;
        std::fill(results[p], results[p] + columns, T(0));
      }
      for (Index t = 0; t < count; ++t) {
        Index inside = 0;
        for (Index p = 0; p < size; ++p) {
          const auto [image, row, column] = list[p];
          const Index read = from.at(image, row * stride + taps[t].row, column * stride + taps[t].column);
          if (read < 0) continue;
          reads[inside] = x + read * depth;
          writes[inside++] = results[p];
        }
        for (Index column = 0; column < columns;) {
          const bool wide = columns - column >= kWide * Lanes<T>::n;
          const Index width = (wide ? kWide : 1) * Lanes<T>::n;
          const T* b = weights.data() + (column * count + t * width) * depth;
          for (Index first = 0; first < depth; first += kDepth) {
            const Index some = std::min(kDepth, depth - first);
            if (wide)
              panel<T, kWide>(reads, inside, first, b + first * width, some, writes, column);
            else
              panel<T, 1>(reads, inside, first, b + first * width, some, writes, column);
          }
          column += width;
        }
      }
    }
  });
}

// x (N, Ci, H, W), kernel (Co, Ci, 3, 3) → (N, Co, ⌈H / stride⌉, ⌈W / stride⌉). Co is a multiple of the lanes of a vector.
Tensor convolve(const Tensor& x, const Tensor& kernel, Index stride) {
  const Map from{x.size(0), x.size(2), x.size(3)};
  const Map to{from.n, (from.h + stride - 1) / stride, (from.w + stride - 1) / stride};
  const Index co = kernel.size(0), ci = kernel.size(1);
  Tensor y = empty_last(x, {to.n, co, to.h, to.w});
  std::array<Tap, kTaps> taps;
  for (Index t = 0; t < kTaps; ++t) taps[t] = {t, t / 3 - 1, t % 3 - 1};
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const auto weights = panels<T>(kernel, false, taps.data(), kTaps);
    products<T>(
        x.const_data_ptr<T>(), from, ci, weights, taps.data(), kTaps, stride, y.mutable_data_ptr<T>(), to, to, 1, 0, 0,
        co);
  });
  return y;
}

// The gradient (N, Ci, h, w) of x from that of the output, g (N, Co, ⌈h / stride⌉, ⌈w / stride⌉). Ci is a multiple of the lanes.
// With stride 2 places of x are of four kinds, by whether row and column are even, and 1, 2, 2 or 4 taps wrote from them.
Tensor input_gradient(const Tensor& g, const Tensor& kernel, Index stride, Index h, Index w) {
  const Map from{g.size(0), g.size(2), g.size(3)}, to{from.n, h, w};
  const Index co = kernel.size(0), ci = kernel.size(1);
  Tensor found = empty_last(g, {to.n, ci, h, w});
  FLOATING_TYPES(g, [&] {
    using T = scalar_t;
    for (Index top = 0; top < stride; ++top)
      for (Index left = 0; left < stride; ++left) {
        std::array<Tap, kTaps> taps;
        Index count = 0;
        for (Index t = 0; t < kTaps; ++t) {
          const Index row = top + 1 - t / 3, column = left + 1 - t % 3;
          if (row % stride == 0 && column % stride == 0) taps[count++] = {t, row / stride, column / stride};
        }
        const Map places{to.n, (h - top + stride - 1) / stride, (w - left + stride - 1) / stride};
        const auto weights = panels<T>(kernel, true, taps.data(), count);
        products<T>(
            g.const_data_ptr<T>(), from, co, weights, taps.data(), count, 1, found.mutable_data_ptr<T>(), places, to,
            stride, top, left, ci);
      }
  });
  return found;
}

// R rows and L vectors of columns of c += Σ of a row of x by a row of g; those of g lie one after another.
template <typename T, int R, int L>
void outer(const T* const* x, const T* g, Index depth, Index row, Index column, Index n, T* c) {
  using V = typename Lanes<T>::V;
  V sum[R][L] = {};
  for (Index k = 0; k < depth; ++k, g += L * Lanes<T>::n) {
    V factor[L];
    const T* scalars = x[k] + row;
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l) factor[l] = load<T>(g + l * Lanes<T>::n);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int l = 0; l < L; ++l) sum[r][l] += scalars[r] * factor[l];
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l) {
      T* to = c + (row + r) * n + column + l * Lanes<T>::n;
      store<T>(to, load<T>(to) + sum[r][l]);
    }
}

// The columns of g are copied first: rows that lie a power of two apart would share a few places of the cache.
template <typename T, int L>
void outer_panel(const T* const* x, const T* const* g, Index depth, Index rows, Index column, Index n, T* c) {
  T columns[kBlock * L * Lanes<T>::n];
  for (Index k = 0; k < depth; ++k)
    std::copy_n(g[k] + column, L * Lanes<T>::n, columns + k * L * Lanes<T>::n);
  Index r = 0;
  for (; rows - r >= kRows; r += kRows) outer<T, kRows, L>(x, columns, depth, r, column, n, c);
  for (; rows - r >= 4; r += 4) outer<T, 4, L>(x, columns, depth, r, column, n, c);
  for (; r < rows; ++r) outer<T, 1, L>(x, columns, depth, r, column, n, c);
}

// The same for few channels, with the taps as rows: c (9, Ci, n).
template <typename T>
void all_taps(const T* const* x, const T* g, Index depth, Index ci, Index n, T* c) {
  using V = typename Lanes<T>::V;
  for (Index i = 0; i < ci; ++i)
    for (Index column = 0; column < n; column += Lanes<T>::n) {
      V sum[kTaps] = {};
      for (Index k = 0; k < depth; ++k) {
        const V factor = load<T>(g + k * n + column);
#pragma GCC unroll 9
        for (Index t = 0; t < kTaps; ++t) sum[t] += x[t * kBlock + k][i] * factor;
      }
      for (Index t = 0; t < kTaps; ++t) {
        T* to = c + (t * ci + i) * n + column;
        store<T>(to, load<T>(to) + sum[t]);
      }
    }
}

// The gradient (Co, Ci, 3, 3) of the kernel from x and the gradient g (N, Co, …) of the output, with `last` as channels-last.
Tensor kernel_gradient(const Tensor& x, const Tensor& g, Index stride, bool last) {
  const Map from{x.size(0), x.size(2), x.size(3)}, places{g.size(0), g.size(2), g.size(3)};
  const Index ci = x.size(1), co = g.size(1), size = kTaps * ci * co;
  const bool narrow = ci <= kNarrow;
  const Index blocks = places.blocks(kBlock), chunks = std::clamp<Index>(blocks / 8, 1, 4);
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  Tensor found = empty_of(x, x.scalar_type(), format, {co, ci, 3, 3});
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const T *input = x.const_data_ptr<T>(), *gradient = g.const_data_ptr<T>();
    const std::vector<T> zeros(ci, T(0));
    std::vector<T> sums(chunks * size, T(0));
    // All taps of a block together read it once, but where their sums exceed the second cache they go one after another.
    const Index group = size * Index(sizeof(T)) <= kSums ? kTaps : 1;
    const auto at_tap = [&](const Place& place, Index t) {
      return from.at(place.image, place.row * stride + t / 3 - 1, place.column * stride + t % 3 - 1);
    };
    if (narrow)
      parallel_for(0, chunks, 1, [&](Index begin, Index end) {
        for (Index chunk = begin; chunk < end; ++chunk)
          for (Index block = blocks * chunk / chunks; block < blocks * (chunk + 1) / chunks; ++block) {
            Place list[kBlock];
            const Index count = places.block(block, kBlock, list);
            const T* reads[kTaps * kBlock];
            for (Index t = 0; t < kTaps; ++t)
              for (Index p = 0; p < count; ++p) {
                const Index read = at_tap(list[p], t);
                reads[t * kBlock + p] = read < 0 ? zeros.data() : input + read * ci;
              }
            all_taps(reads, gradient + block * kBlock * co, count, ci, co, sums.data() + chunk * size);
          }
      });
    else
      parallel_for(0, chunks * kTaps / group, 1, [&](Index begin, Index end) {
        for (Index unit = begin; unit < end; ++unit) {
          const Index chunk = unit * group / kTaps, first = unit * group % kTaps;
          for (Index block = blocks * chunk / chunks; block < blocks * (chunk + 1) / chunks; ++block) {
            Place list[kBlock];
            const T *reads[kBlock], *writes[kBlock];
            const Index count = places.block(block, kBlock, list);
            for (Index t = first; t < first + group; ++t) {
              Index inside = 0;
              for (Index p = 0; p < count; ++p) {
                const Index read = at_tap(list[p], t);
                if (read < 0) continue;
                reads[inside] = input + read * ci;
                writes[inside++] = gradient + (block * kBlock + p) * co;
              }
              T* to = sums.data() + chunk * size + t * ci * co;
              for (Index column = 0; column < co;) {
                const bool wide = co - column >= kWide * Lanes<T>::n;
                if (wide)
                  outer_panel<T, kWide>(reads, writes, inside, ci, column, co, to);
                else
                  outer_panel<T, 1>(reads, writes, inside, ci, column, co, to);
                column += (wide ? kWide : 1) * Lanes<T>::n;
              }
            }
          }
        }
      });
    T* to = found.mutable_data_ptr<T>();
    for (Index chunk = 1; chunk < chunks; ++chunk)
      for (Index i = 0; i < size; ++i) sums[i] += sums[chunk * size + i];
    const Index tap = last ? ci : 1, channel = last ? 1 : kTaps;
    for (Index first = 0; first < co; first += Lanes<T>::n)
      for (Index i = 0; i < ci; ++i)
        for (Index t = 0; t < kTaps; ++t)
          for (Index o = first; o < first + Lanes<T>::n; ++o)
            to[o * ci * kTaps + i * channel + t * tap] = sums[(t * ci + i) * co + o];
  });
  return found;
}

}  // namespace

STABLE_TORCH_LIBRARY(mapsto_conv3x3_direct, library) {
  library.def("convolve(Tensor x, Tensor kernel, int stride) -> Tensor");
  library.def("input_gradient(Tensor g, Tensor kernel, int stride, int h, int w) -> Tensor");
  library.def("kernel_gradient(Tensor x, Tensor g, int stride, bool last) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(mapsto_conv3x3_direct, CPU, library) {
  library.impl("convolve", TORCH_BOX(&convolve));
  library.impl("input_gradient", TORCH_BOX(&input_gradient));
  library.impl("kernel_gradient", TORCH_BOX(&kernel_gradient));
}
