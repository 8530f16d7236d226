// 3 × 3 convolution, stride and padding 1, channels-last, by Winograd's F(2 × 2, 3 × 3), which takes 16 products where there
// would be 36 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Its smallest tiles are as exact as
// the sum itself, about. With its two gradients, each of which is of the same kind.
//
// Sums are over a number of chunks that follows from the shapes alone: the result does not depend on the number of threads.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tensors.h"
#include "vectors.h"

namespace {

using Index = std::int64_t;

constexpr Index kBlock = 48;  // tiles that are worked on at once, so that they stay in the cache
constexpr Index kPoints = 16;

struct Grid {
  Index n, h, w, rows, columns;
  Grid(Index n_, Index h_, Index w_) : n(n_), h(h_), w(w_), rows((h_ + 1) / 2), columns((w_ + 1) / 2) {}
  Index tiles() const { return n * rows * columns; }
  Index blocks() const { return (tiles() + kBlock - 1) / kBlock; }
};

// G g Gᵀ of one 3 × 3 kernel, whose numbers are `tap` apart; `flip` turns it round.
template <typename T>
void kernel_points(const T* g, Index tap, bool flip, T* to, Index step) {
  T half[4][3];
  for (Index j = 0; j < 3; ++j) {
    const T a = g[(flip ? 8 - j : j) * tap], b = g[(flip ? 5 - j : 3 + j) * tap], c = g[(flip ? 2 - j : 6 + j) * tap];
    half[0][j] = a;
    half[1][j] = (a + b + c) / 2;
    half[2][j] = (a - b + c) / 2;
    half[3][j] = c;
  }
  for (Index i = 0; i < 4; ++i) {
    const T a = half[i][0], b = half[i][1], c = half[i][2];
    to[(4 * i) * step] = a;
    to[(4 * i + 1) * step] = (a + b + c) / 2;
    to[(4 * i + 2) * step] = (a - b + c) / 2;
    to[(4 * i + 3) * step] = c;
  }
}

// Kernels (Co, Ci, 3, 3), dense in either order, → (16, Ci, Co), or with `back` those of the gradient of the input, (16, Co, Ci).
template <typename T>
std::vector<T> all_points(const Tensor& kernel, bool back) {
  const Index co = kernel.size(0), ci = kernel.size(1);
  const T* data = kernel.const_data_ptr<T>();
  std::vector<T> to(kPoints * co * ci);
  for (Index o = 0; o < co; ++o)
    for (Index i = 0; i < ci; ++i)
      kernel_points(
          data + o * kernel.stride(0) + i * kernel.stride(1), kernel.stride(3), back,
          to.data() + (back ? o * ci + i : i * co + o), co * ci);
  return to;
}

// Bᵀ d B of the tiles of a block: x (N, H, W, C) → (16, block, C).
template <typename T>
void input_points(const T* x, const Grid& grid, Index c, Index first, Index count, T* to) {
  using V = typename Lanes<T>::V;
  for (Index t = 0; t < count; ++t) {
    const Index tile = first + t, column = tile % grid.columns, row = tile / grid.columns % grid.rows;
    const Index top = 2 * row - 1, left = 2 * column - 1;
    const T* image = x + tile / (grid.columns * grid.rows) * grid.h * grid.w * c;
    for (Index k = 0; k < c; k += Lanes<T>::n) {
      V d[4][4];
      for (Index i = 0; i < 4; ++i)
        for (Index j = 0; j < 4; ++j) {
          const Index r = top + i, s = left + j;
          const bool inside = r >= 0 && r < grid.h && s >= 0 && s < grid.w;
          d[i][j] = inside ? load<T>(image + (r * grid.w + s) * c + k) : V{};
        }
      for (Index j = 0; j < 4; ++j) {
        const V a = d[0][j], b = d[1][j], e = d[2][j], f = d[3][j];
        d[0][j] = a - e;
        d[1][j] = b + e;
        d[2][j] = e - b;
        d[3][j] = b - f;
      }
      T* out = to + t * c + k;
      const Index step = kBlock * c;
      for (Index i = 0; i < 4; ++i) {
        store<T>(out + (4 * i) * step, d[i][0] - d[i][2]);
        store<T>(out + (4 * i + 1) * step, d[i][1] + d[i][2]);
        store<T>(out + (4 * i + 2) * step, d[i][2] - d[i][1]);
        store<T>(out + (4 * i + 3) * step, d[i][1] - d[i][3]);
      }
    }
  }
}

// Aᵀ m A of the tiles of a block: (16, block, C) → y (N, H, W, C).
template <typename T>
void output_values(const T* m, const Grid& grid, Index c, Index first, Index count, T* y) {
  using V = typename Lanes<T>::V;
  for (Index t = 0; t < count; ++t) {
    const Index tile = first + t, column = tile % grid.columns, row = tile / grid.columns % grid.rows;
    T* image = y + tile / (grid.columns * grid.rows) * grid.h * grid.w * c;
    const bool below = 2 * row + 1 < grid.h, beside = 2 * column + 1 < grid.w;
    for (Index k = 0; k < c; k += Lanes<T>::n) {
      V half[2][4];
      for (Index j = 0; j < 4; ++j) {
        const T* from = m + (j * kBlock + t) * c + k;
        const Index step = 4 * kBlock * c;
        const V a = load<T>(from), b = load<T>(from + step), d = load<T>(from + 2 * step), e = load<T>(from + 3 * step);
        half[0][j] = a + b + d;
        half[1][j] = b - d - e;
      }
      T* out = image + (2 * row * grid.w + 2 * column) * c + k;
      for (Index i = 0; i < 2; ++i, out += grid.w * c) {
        if (i && !below) break;
        store<T>(out, half[i][0] + half[i][1] + half[i][2]);
        if (beside) store<T>(out + c, half[i][1] - half[i][2] - half[i][3]);
      }
    }
  }
}

// A g Aᵀ of the tiles of a block, the transpose of `output_values`: g (N, H, W, C) → (16, block, C).
template <typename T>
void gradient_points(const T* g, const Grid& grid, Index c, Index first, Index count, T* to) {
  using V = typename Lanes<T>::V;
  for (Index t = 0; t < count; ++t) {
    const Index tile = first + t, column = tile % grid.columns, row = tile / grid.columns % grid.rows;
    const T* image = g + tile / (grid.columns * grid.rows) * grid.h * grid.w * c;
    const bool below = 2 * row + 1 < grid.h, beside = 2 * column + 1 < grid.w;
    for (Index k = 0; k < c; k += Lanes<T>::n) {
      const T* from = image + (2 * row * grid.w + 2 * column) * c + k;
      const V a = load<T>(from), b = beside ? load<T>(from + c) : V{};
      const V d = below ? load<T>(from + grid.w * c) : V{};
      const V e = below && beside ? load<T>(from + (grid.w + 1) * c) : V{};
      const V left[4] = {a, a + d, a - d, -d}, right[4] = {b, b + e, b - e, -e};
      T* out = to + t * c + k;
      const Index step = kBlock * c;
      for (Index i = 0; i < 4; ++i) {
        store<T>(out + (4 * i) * step, left[i]);
        store<T>(out + (4 * i + 1) * step, left[i] + right[i]);
        store<T>(out + (4 * i + 2) * step, left[i] - right[i]);
        store<T>(out + (4 * i + 3) * step, -right[i]);
      }
    }
  }
}

// R rows and L vectors of columns of c (+)= a · b. Element (r, k) of a is a[r · ar + k · ak]; rows of b and c are `n` long.
template <typename T, int R, int L, bool kAdd>
void tile_product(const T* a, Index ar, Index ak, const T* b, Index depth, Index n, T* c) {
  using V = typename Lanes<T>::V;
  V sum[R][L] = {};
  for (Index k = 0; k < depth; ++k) {
    V row[L];
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l) row[l] = load<T>(b + k * n + l * Lanes<T>::n);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T scalar = a[r * ar + k * ak];
#pragma GCC unroll 8
      for (int l = 0; l < L; ++l) sum[r][l] += scalar * row[l];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l) {
      T* to = c + r * n + l * Lanes<T>::n;
      store<T>(to, kAdd ? load<T>(to) + sum[r][l] : sum[r][l]);
    }
}

template <typename T, bool kAdd>
void product(const T* a, Index ar, Index ak, const T* b, Index rows, Index depth, Index n, T* c) {
  const Index wide = kWide * Lanes<T>::n;
  for (Index column = 0; column < n;) {
    const bool whole = n - column >= wide;
    for (Index r = 0; r < rows;) {
      const T* from = a + r * ar;
      T* to = c + r * n + column;
      const Index left = rows - r;
      if (whole && left >= 6) {
        tile_product<T, 6, kWide, kAdd>(from, ar, ak, b + column, depth, n, to);
        r += 6;
      } else if (whole && left >= 4) {
        tile_product<T, 4, kWide, kAdd>(from, ar, ak, b + column, depth, n, to);
        r += 4;
      } else if (whole) {
        tile_product<T, 1, kWide, kAdd>(from, ar, ak, b + column, depth, n, to);
        r += 1;
      } else if (left >= 6) {
        tile_product<T, 6, 1, kAdd>(from, ar, ak, b + column, depth, n, to);
        r += 6;
      } else {
        tile_product<T, 1, 1, kAdd>(from, ar, ak, b + column, depth, n, to);
        r += 1;
      }
    }
    column += whole ? wide : Lanes<T>::n;
  }
}

// x (N, Ci, H, W), kernel (Co, Ci, 3, 3) → (N, Co, H, W); with `back` from the gradient (N, Co, H, W) to that of x. Channels are
// multiples of the lanes of a vector.
Tensor convolve(const Tensor& x, const Tensor& kernel, bool back) {
  const Grid grid(x.size(0), x.size(2), x.size(3));
  const Index co = kernel.size(0), ci = kernel.size(1), from = back ? co : ci, to = back ? ci : co;
  Tensor y = empty_last(x, {grid.n, to, grid.h, grid.w});
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const auto points = all_points<T>(kernel, back);
    const T* input = x.const_data_ptr<T>();
    T* output = y.mutable_data_ptr<T>();
    parallel_for(0, grid.blocks(), 1, [&](Index begin, Index end) {
      std::vector<T> d(kPoints * kBlock * from), m(kPoints * kBlock * to);
      for (Index block = begin; block < end; ++block) {
        const Index first = block * kBlock, count = std::min(kBlock, grid.tiles() - first);
        input_points<T>(input, grid, from, first, count, d.data());
        for (Index p = 0; p < kPoints; ++p)
          product<T, false>(
              d.data() + p * kBlock * from, from, 1, points.data() + p * from * to, count, from, to,
              m.data() + p * kBlock * to);
        output_values<T>(m.data(), grid, to, first, count, output);
      }
    });
  });
  return y;
}

// The gradient (Co, Ci, 3, 3) of the kernel from x and the gradient (N, Co, H, W) of the output, with `last` as channels-last.
Tensor kernel_gradient(const Tensor& x, const Tensor& g, bool last) {
  const Grid grid(x.size(0), x.size(2), x.size(3));
  const Index ci = x.size(1), co = g.size(1), size = kPoints * ci * co;
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  Tensor found = empty_of(x, x.scalar_type(), format, {co, ci, 3, 3});
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const Index chunks = std::clamp<Index>(grid.blocks() / 8, 1, 4);
    std::vector<T> sums(chunks * size, T(0));
    parallel_for(0, chunks, 1, [&](Index begin, Index end) {
      std::vector<T> d(kPoints * kBlock * ci), m(kPoints * kBlock * co);
      for (Index chunk = begin; chunk < end; ++chunk)
        for (Index block = grid.blocks() * chunk / chunks; block < grid.blocks() * (chunk + 1) / chunks; ++block) {
          const Index first = block * kBlock, count = std::min(kBlock, grid.tiles() - first);
          input_points<T>(x.const_data_ptr<T>(), grid, ci, first, count, d.data());
          gradient_points<T>(g.const_data_ptr<T>(), grid, co, first, count, m.data());
          for (Index p = 0; p < kPoints; ++p)
            product<T, true>(
                d.data() + p * kBlock * ci, 1, ci, m.data() + p * kBlock * co, ci, count, co,
                sums.data() + chunk * size + p * ci * co);
        }
    });
    for (Index chunk = 1; chunk < chunks; ++chunk)
      for (Index i = 0; i < size; ++i) sums[i] += sums[chunk * size + i];
    T* to = found.mutable_data_ptr<T>();
    const Index tap = last ? ci : 1, channel = last ? 1 : 9;
    for (Index o = 0; o < co; ++o)
      for (Index i = 0; i < ci; ++i) {
        T half[3][4];
        for (Index j = 0; j < 4; ++j) {
          T column[4];
          for (Index r = 0; r < 4; ++r) column[r] = sums[(4 * r + j) * ci * co + i * co + o];
          half[0][j] = column[0] + (column[1] + column[2]) / 2;
          half[1][j] = (column[1] - column[2]) / 2;
          half[2][j] = (column[1] + column[2]) / 2 + column[3];
        }
        for (Index r = 0; r < 3; ++r) {
          T* out = to + o * ci * 9 + i * channel + 3 * r * tap;
          out[0] = half[r][0] + (half[r][1] + half[r][2]) / 2;
          out[tap] = (half[r][1] - half[r][2]) / 2;
          out[2 * tap] = (half[r][1] + half[r][2]) / 2 + half[r][3];
        }
      }
  });
  return found;
}

}  // namespace

STABLE_TORCH_LIBRARY(mapsto_conv3x3, library) {
  library.def("convolve(Tensor x, Tensor kernel, bool back) -> Tensor");
  library.def("kernel_gradient(Tensor x, Tensor g, bool last) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(mapsto_conv3x3, CPU, library) {
  library.impl("convolve", TORCH_BOX(&convolve));
  library.impl("kernel_gradient", TORCH_BOX(&kernel_gradient));
}
