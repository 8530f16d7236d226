// Every map of one set added to every map of another, each sum normalised over all its values (group norm of one group), then max-pooling
// by 2 × 2 and ReLU, with the gradients: no sum is ever written to memory, which is where the time goes otherwise.
//
// All maps are channels-last. `picked` holds, for each pooled element, the sum that won; its winner is the first element of the window
// that is equal to it. Gradients are summed over a fixed number of chunks, added up in order: the result does not depend on the number
// of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

#include "tensors.h"

#if defined(_OPENMP)
#define SIMD _Pragma("omp simd")
#define SIMD_TOTAL _Pragma("omp simd reduction(+ : total)")
#else
#define SIMD
#define SIMD_TOTAL
#endif

namespace {

using Index = std::int64_t;

constexpr Index kChunks = 8;  // of a task's second maps

struct Shape {
  Index tasks, k, q, c, h, w, ho, wo;
  Shape(const Tensor& first, const Tensor& second, Index tasks_)
      : tasks(tasks_), k(first.size(0) / tasks), q(second.size(0) / tasks), c(first.size(1)), h(first.size(2)),
        w(first.size(3)), ho(h / 2), wo(w / 2) {}
  Index values() const { return c * h * w; }
  Index pooled() const { return c * ho * wo; }
};

template <typename T>
T sum_of(const T* x, Index count, T centre) {
  T total = 0;
  SIMD_TOTAL
  for (Index i = 0; i < count; ++i) total += x[i] - centre;
  return total;
}

template <typename T>
std::vector<T> means(const T* maps, Index count, Index values) {
  std::vector<T> found(count);
  parallel_for(0, count, 16, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) {
      const T* x = maps + i * values;
      const T rough = sum_of<T>(x, values, T(0)) / static_cast<T>(values);
      found[i] = rough + sum_of<T>(x, values, rough) / static_cast<T>(values);
    }
  });
  return found;
}

template <typename T>
T squares(const T* __restrict__ x, const T* __restrict__ y, Index count, T mean) {
  T total = 0;
  SIMD_TOTAL
  for (Index i = 0; i < count; ++i) {
    const T d = x[i] + y[i] - mean;
    total += d * d;
  }
  return total;
}

template <typename T>
T product(const T* x, const T* y, Index count) {
  T total = 0;
  SIMD_TOTAL
  for (Index i = 0; i < count; ++i) total += x[i] * y[i];
  return total;
}

// z = x · scale + shift, channel by channel, for one pair.
template <typename T>
void affine(const T* weight, const T* bias, T mean, T rstd, Index c, T* __restrict__ scale, T* __restrict__ shift) {
  SIMD
  for (Index i = 0; i < c; ++i) {
    scale[i] = weight[i] * rstd;
    shift[i] = bias[i] - mean * scale[i];
  }
}

template <typename T>
void pool(const T* x, const T* y, const Shape& s, const T* scale_, const T* shift_, T* to_, T* picked_) {
  const Index c = s.c, line = s.w * c;
  for (Index row = 0; row < s.ho; ++row)
    for (Index column = 0; column < s.wo; ++column) {
      const Index at = (2 * row * s.w + 2 * column) * c, small = (row * s.wo + column) * c;
      const T* __restrict__ x0 = x + at;
      const T* __restrict__ y0 = y + at;
      const T* __restrict__ scale = scale_;
      const T* __restrict__ shift = shift_;
      T* __restrict__ to = to_ + small;
      T* __restrict__ picked = picked_ + small;
      SIMD
      for (Index i = 0; i < c; ++i) {
        const T k = scale[i], b = shift[i];
        const T v1 = x0[i + c] + y0[i + c], v2 = x0[i + line] + y0[i + line];
        const T v3 = x0[i + line + c] + y0[i + line + c];
        const T z1 = v1 * k + b, z2 = v2 * k + b, z3 = v3 * k + b;
        T best = x0[i] + y0[i], z = best * k + b;
        best = z1 > z ? v1 : best;
        z = z1 > z ? z1 : z;
        best = z2 > z ? v2 : best;
        z = z2 > z ? z2 : z;
        best = z3 > z ? v3 : best;
        z = z3 > z ? z3 : z;
        picked[i] = best;
        to[i] = z <= T(0) ? T(0) : z;
      }
    }
}

// first (tasks · K, C, H, W) and second (tasks · Q, C, H, W) → y and picked (tasks · Q · K, C, H // 2, W // 2), and mean and
// 1 / standard deviation of each pair.
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& first, const Tensor& second, const Tensor& weight, const Tensor& bias, Index tasks, double eps) {
  const Shape s(first, second, tasks);
  const Index pairs = s.tasks * s.q * s.k, values = s.values();
  Tensor y = empty_last(first, {pairs, s.c, s.ho, s.wo}), picked = empty_last(first, {pairs, s.c, s.ho, s.wo});
  Tensor mean = empty(first, {pairs}), rstd = empty(first, {pairs});
  FLOATING_TYPES(first, [&] {
    using T = scalar_t;
    const T *a = first.const_data_ptr<T>(), *b = second.const_data_ptr<T>();
    const T *gamma = weight.const_data_ptr<T>(), *beta = bias.const_data_ptr<T>();
    T *to = y.mutable_data_ptr<T>(), *won = picked.mutable_data_ptr<T>();
    T *mu = mean.mutable_data_ptr<T>(), *r = rstd.mutable_data_ptr<T>();
    const auto of_a = means<T>(a, s.tasks * s.k, values), of_b = means<T>(b, s.tasks * s.q, values);
    parallel_for(0, s.tasks * s.q, 1, [&](Index begin, Index end) {
      std::vector<T> room(2 * s.c);
      T *scale = room.data(), *shift = scale + s.c;
      for (Index query = begin; query < end; ++query)
        for (Index k = 0; k < s.k; ++k) {
          const Index one = query / s.q * s.k + k, pair = query * s.k + k;
          const T *x = a + one * values, *z = b + query * values;
          mu[pair] = of_a[one] + of_b[query];
          const double variance = static_cast<double>(squares<T>(x, z, values, mu[pair])) / static_cast<double>(values);
          r[pair] = static_cast<T>(1.0 / std::sqrt(variance + eps));
          affine<T>(gamma, beta, mu[pair], r[pair], s.c, scale, shift);
          pool<T>(x, z, s, scale, shift, to + pair * s.pooled(), won + pair * s.pooled());
        }
    });
  });
  return {y, picked, mean, rstd};
}

// The gradient of a pair's sum, added to that of both maps: (what passes at the winner) · scale + x · tilt + level.
template <typename T>
void spread(
    const T* x, const T* y, const T* passed_, const T* picked_, const Shape& s, const T* scale_, T tilt, T level, T* gx,
    T* gy) {
  const Index c = s.c;
  const auto plain = [&](Index at, Index count) {
    const T* __restrict__ x0 = x + at;
    const T* __restrict__ y0 = y + at;
    T* __restrict__ gx0 = gx + at;
    T* __restrict__ gy0 = gy + at;
    SIMD
    for (Index i = 0; i < count; ++i) {
      const T g = (x0[i] + y0[i]) * tilt + level;
      gx0[i] += g;
      gy0[i] += g;
    }
  };
  for (Index row = 0; row < s.ho; ++row) {
    for (Index column = 0; column < s.wo; ++column) {
      const Index at = (2 * row * s.w + 2 * column) * c, small = (row * s.wo + column) * c;
      const Index places[] = {at, at + c, at + s.w * c, at + (s.w + 1) * c};
      const T* __restrict__ scale = scale_;
      const T* __restrict__ picked = picked_ + small;
      const T* __restrict__ passed = passed_ + small;
      const T *__restrict__ x0 = x + places[0], *__restrict__ y0 = y + places[0];
      const T *__restrict__ x1 = x + places[1], *__restrict__ y1 = y + places[1];
      const T *__restrict__ x2 = x + places[2], *__restrict__ y2 = y + places[2];
      const T *__restrict__ x3 = x + places[3], *__restrict__ y3 = y + places[3];
      T *__restrict__ gx0 = gx + places[0], *__restrict__ gy0 = gy + places[0];
      T *__restrict__ gx1 = gx + places[1], *__restrict__ gy1 = gy + places[1];
      T *__restrict__ gx2 = gx + places[2], *__restrict__ gy2 = gy + places[2];
      T *__restrict__ gx3 = gx + places[3], *__restrict__ gy3 = gy + places[3];
      SIMD
      for (Index i = 0; i < c; ++i) {
        const T won = picked[i];
        T left = passed[i] * scale[i];
        const T v0 = x0[i] + y0[i], v1 = x1[i] + y1[i], v2 = x2[i] + y2[i], v3 = x3[i] + y3[i];
        T g0 = v0 * tilt + level, g1 = v1 * tilt + level, g2 = v2 * tilt + level, g3 = v3 * tilt + level;
        g0 += v0 == won ? left : T(0);
        left = v0 == won ? T(0) : left;
        g1 += v1 == won ? left : T(0);
        left = v1 == won ? T(0) : left;
        g2 += v2 == won ? left : T(0);
        left = v2 == won ? T(0) : left;
        g3 += v3 == won ? left : T(0);
        gx0[i] += g0;
        gy0[i] += g0;
        gx1[i] += g1;
        gy1[i] += g1;
        gx2[i] += g2;
        gy2[i] += g2;
        gx3[i] += g3;
        gy3[i] += g3;
      }
    }
    if (2 * s.wo < s.w)
      for (Index line = 2 * row; line < 2 * row + 2; ++line) plain((line * s.w + 2 * s.wo) * c, c);
  }
  if (2 * s.ho < s.h) plain(2 * s.ho * s.w * c, s.w * c);
}

// The gradients of first, second, weight and bias from that of y.
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& g, const Tensor& first, const Tensor& second, const Tensor& weight, const Tensor& bias,
    const Tensor& picked, const Tensor& mean, const Tensor& rstd, Index tasks) {
  const Shape s(first, second, tasks);
  const Index c = s.c, values = s.values(), pooled = s.pooled(), windows = s.ho * s.wo;
  Tensor to_first = empty_like(first), to_second = empty_like(second);
  Tensor to_weight = empty_like(weight), to_bias = empty_like(bias);
  FLOATING_TYPES(first, [&] {
    using T = scalar_t;
    const T *a = first.const_data_ptr<T>(), *b = second.const_data_ptr<T>(), *gy = g.const_data_ptr<T>();
    const T *gamma = weight.const_data_ptr<T>(), *beta = bias.const_data_ptr<T>(), *won = picked.const_data_ptr<T>();
    const T *mu = mean.const_data_ptr<T>(), *r = rstd.const_data_ptr<T>();
    T *ga = to_first.mutable_data_ptr<T>(), *gb = to_second.mutable_data_ptr<T>();
    const Index units = s.tasks * kChunks, of_task = s.k * values;
    std::vector<T> parts(units * of_task);
    std::vector<double> sums(units * 2 * c, 0.0);
    parallel_for(0, units, 1, [&](Index begin, Index end) {
      std::vector<T> room(4 * c + pooled);
      T *scale = room.data(), *shift = scale + c, *flat = shift + c, *dot = flat + c, *passed = dot + c;
      for (Index unit = begin; unit < end; ++unit) {
        const Index task = unit / kChunks, chunk = unit % kChunks;
        T* to_a = parts.data() + unit * of_task;
        double* total = sums.data() + unit * 2 * c;
        for (Index q = s.q * chunk / kChunks; q < s.q * (chunk + 1) / kChunks; ++q) {
          const Index query = task * s.q + q;
          T* to_b = gb + query * values;
          std::fill(to_b, to_b + values, T(0));
          for (Index k = 0; k < s.k; ++k) {
            const Index pair = query * s.k + k;
            const T m = mu[pair];
            affine<T>(gamma, beta, m, r[pair], c, scale, shift);
            std::fill(flat, flat + 2 * c, T(0));
            for (Index p = 0; p < windows; ++p) {
              const T* __restrict__ w = won + pair * pooled + p * c;
              const T* __restrict__ grad = gy + pair * pooled + p * c;
              T* __restrict__ kept = passed + p * c;
              SIMD
              for (Index i = 0; i < c; ++i) {
                const T through = w[i] * scale[i] + shift[i] > T(0) ? grad[i] : T(0);
                kept[i] = through;
                flat[i] += through;
                dot[i] += through * (w[i] - m);
              }
            }
            for (Index i = 0; i < c; ++i) {
              total[i] += static_cast<double>(dot[i] * r[pair]);
              total[c + i] += static_cast<double>(flat[i]);
            }
            const T rate = r[pair], share = rate / static_cast<T>(values);
            const T tilt = -rate * rate * share * product<T>(gamma, dot, c);
            const T level = -share * product<T>(gamma, flat, c) - m * tilt;
            spread<T>(
                a + (task * s.k + k) * values, b + query * values, passed, won + pair * pooled, s, scale, tilt, level,
                to_a + k * values, to_b);
          }
        }
      }
    });
    parallel_for(0, s.tasks * s.k, 1, [&](Index begin, Index end) {
      for (Index one = begin; one < end; ++one) {
        T* __restrict__ to = ga + one * values;
        std::fill(to, to + values, T(0));
        for (Index chunk = 0; chunk < kChunks; ++chunk) {
          const T* __restrict__ part = parts.data() + (one / s.k * kChunks + chunk) * of_task + one % s.k * values;
          SIMD
          for (Index i = 0; i < values; ++i) to[i] += part[i];
        }
      }
    });
    for (Index i = 0; i < c; ++i) {
      double of_weight = 0, of_bias = 0;
      for (Index unit = 0; unit < units; ++unit) {
        of_weight += sums[unit * 2 * c + i];
        of_bias += sums[unit * 2 * c + c + i];
      }
      to_weight.mutable_data_ptr<T>()[i] = static_cast<T>(of_weight);
      to_bias.mutable_data_ptr<T>()[i] = static_cast<T>(of_bias);
    }
  });
  return {to_first, to_second, to_weight, to_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY(mapsto_pair_norm_pool, library) {
  library.def(
      "forward(Tensor first, Tensor second, Tensor weight, Tensor bias, int tasks, float eps)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "backward(Tensor g, Tensor first, Tensor second, Tensor weight, Tensor bias, Tensor picked, Tensor mean,"
      " Tensor rstd, int tasks) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(mapsto_pair_norm_pool, CPU, library) {
  library.impl("forward", TORCH_BOX(&forward));
  library.impl("backward", TORCH_BOX(&backward));
}
