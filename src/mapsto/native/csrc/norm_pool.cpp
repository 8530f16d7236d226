// Batch norm by the statistics of the batch, ReLU and max-pooling (2 × 2 or none) in one, with its first and second backward
// pass. All dense tensors are channels-last. `picked` holds, for each pooled element, the input that won; without pooling
// it is the input itself. So neither indices nor masks are kept: the winner of a window is its first element equal to
// `picked`, and an element passes the ReLU where its normalised value is above 0.
//
// Sums are over a fixed number of chunks, added up in order, in double: the result does not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <vector>

#include "tensors.h"
#include "vectors.h"

// Channels are independent: the pointers of an inner loop never overlap.
#if defined(_OPENMP)
#define SIMD _Pragma("omp simd")
#else
#define SIMD
#endif

namespace {

using Index = std::int64_t;

constexpr Index kChunks = 16;
constexpr Index kRun = 32;  // pixels whose sums are kept in the tensor's own type before they go into a double

struct Shape {
  Index n, c, h, w, ho, wo, pool;
  explicit Shape(const Tensor& x, Index pool_)
      : n(x.size(0)), c(x.size(1)), h(x.size(2)), w(x.size(3)), ho(h / pool_), wo(w / pool_), pool(pool_) {}
  Index pixels() const { return n * h * w; }
  Index pooled() const { return n * ho * wo; }
};

// `body(begin, end, sums)` adds over a range of units into `count` doubles.
template <typename Body>
std::vector<double> sums_over(Index units, Index count, const Body& body) {
  std::vector<double> parts(kChunks * count, 0.0);
  parallel_for(0, kChunks, 1, [&](Index first, Index last) {
    for (Index chunk = first; chunk < last; ++chunk)
      body(units * chunk / kChunks, units * (chunk + 1) / kChunks, parts.data() + chunk * count);
  });
  for (Index chunk = 1; chunk < kChunks; ++chunk)
    for (Index i = 0; i < count; ++i) parts[i] += parts[chunk * count + i];
  parts.resize(count);
  return parts;
}

template <typename T>
void fold(std::vector<T>& run, double* sums) {
  for (std::size_t i = 0; i < run.size(); ++i) {
    sums[i] += static_cast<double>(run[i]);
    run[i] = T(0);
  }
}

template <typename T>
const T* in(const Tensor& t) { return t.const_data_ptr<T>(); }

template <typename T>
T* out(Tensor& t) { return t.mutable_data_ptr<T>(); }

Tensor channels_last(const Tensor& like, Index n, Index c, Index h, Index w) {
  return empty_last(like, {n, c, h, w});
}

// The first pixel is taken away before squares are added up, so that a large mean costs no precision.
template <typename T>
void statistics(const T* x, const Shape& s, double eps, T* mean, T* rstd) {
  const Index c = s.c;
  auto sums = sums_over(s.pixels(), 2 * c, [&](Index begin, Index end, double* total) {
    std::vector<T> run(2 * c, T(0));
    for (Index from = begin; from < end; from += kRun) {
      T* __restrict__ a = run.data();
      T* __restrict__ q = a + c;
      for (Index p = from; p < std::min(end, from + kRun); ++p) {
        const T* __restrict__ row = x + p * c;
        SIMD
        for (Index i = 0; i < c; ++i) {
          const T d = row[i] - x[i];
          a[i] += d;
          q[i] += d * d;
        }
      }
      fold(run, total);
    }
  });
  const double m = static_cast<double>(s.pixels());
  for (Index i = 0; i < c; ++i) {
    const double shifted = sums[i] / m;
    double variance = sums[c + i] / m - shifted * shifted;
    if (variance < 0) variance = 0;
    mean[i] = static_cast<T>(static_cast<double>(x[i]) + shifted);
    rstd[i] = static_cast<T>(1.0 / std::sqrt(variance + eps));
  }
}

// z = x · scale + shift, channel by channel.
template <typename T>
void affine(const T* weight, const T* bias, const T* mean, const T* rstd, Index c, T* scale, T* shift) {
  for (Index i = 0; i < c; ++i) {
    scale[i] = weight[i] * rstd[i];
    shift[i] = bias[i] - mean[i] * scale[i];
  }
}

template <typename T>
void pool_rows(const T* x, const Shape& s, const T* scale_, const T* shift_, T* y, T* picked) {
  const Index c = s.c;
  parallel_for(0, s.n * s.ho, 4, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const T* top = x + ((r / s.ho) * s.h + (r % s.ho) * 2) * s.w * c;
      for (Index v = 0; v < s.wo; ++v) {
        const T* __restrict__ x0 = top + 2 * v * c;
        const T* __restrict__ x1 = x0 + c;
        const T* __restrict__ x2 = x0 + s.w * c;
        const T* __restrict__ x3 = x2 + c;
        const T* __restrict__ scale = scale_;
        const T* __restrict__ shift = shift_;
        T* __restrict__ to = y + (r * s.wo + v) * c;
        T* __restrict__ keep = picked + (r * s.wo + v) * c;
        SIMD
        for (Index i = 0; i < c; ++i) {
          const T k = scale[i], b = shift[i];
          T best = x0[i], z = best * k + b;
          const T z1 = x1[i] * k + b, z2 = x2[i] * k + b, z3 = x3[i] * k + b;
          best = z1 > z ? x1[i] : best;
          z = z1 > z ? z1 : z;
          best = z2 > z ? x2[i] : best;
          z = z2 > z ? z2 : z;
          best = z3 > z ? x3[i] : best;
          z = z3 > z ? z3 : z;
          keep[i] = best;
          to[i] = z <= T(0) ? T(0) : z;
        }
      }
    }
  });
}

template <typename T>
void rectify(const T* x, const Shape& s, const T* scale_, const T* shift_, T* y) {
  parallel_for(0, s.pixels(), 64, [&](Index first, Index last) {
    for (Index p = first; p < last; ++p) {
      const T* __restrict__ from = x + p * s.c;
      const T* __restrict__ scale = scale_;
      const T* __restrict__ shift = shift_;
      T* __restrict__ to = y + p * s.c;
      for (Index i = 0; i < s.c; ++i) {
        const T z = from[i] * scale[i] + shift[i];
        to[i] = z <= T(0) ? T(0) : z;
      }
    }
  });
}

// to = (masked gradient at the winner) · a + other · u + x · q + p, where `other` may be null. What the pool drops at an odd
// edge gets no gradient of its own.
template <typename T, bool kOther>
void scatter(
    const T* g, const T* x, const T* other, const T* picked, const Shape& s, const T* scale_, const T* shift_,
    const T* a_, const T* u_, const T* q_, const T* p_, T* to) {
  const Index c = s.c, pool = s.pool, rows = (s.h + pool - 1) / pool;
  const auto plain = [&](Index offset, Index count) {
    for (Index k = 0; k < count; ++k) {
      const T* __restrict__ from = x + offset + k * c;
      const T* __restrict__ also = kOther ? other + offset + k * c : nullptr;
      T* __restrict__ dst = to + offset + k * c;
      for (Index i = 0; i < c; ++i) {
        T value = from[i] * q_[i] + p_[i];
        if constexpr (kOther) value += also[i] * u_[i];
        dst[i] = value;
      }
    }
  };
  parallel_for(0, s.n * rows, 4, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const Index image = r / rows, row = r % rows;
      const Index base = (image * s.h + row * pool) * s.w * c;
      if (row >= s.ho) {
        plain(base, s.w * (s.h - row * pool));
        continue;
      }
      for (Index v = 0; v < s.wo; ++v) {
        const Index small = ((image * s.ho + row) * s.wo + v) * c;
        const T* __restrict__ grad = g + small;
        const T* __restrict__ won = picked + small;
        const T* __restrict__ scale = scale_;
        const T* __restrict__ shift = shift_;
        const T* __restrict__ a = a_;
        const T* __restrict__ u = u_;
        const T* __restrict__ q = q_;
        const T* __restrict__ p = p_;
        if (pool == 1) {
          const Index o0 = base + v * c;
          const T* __restrict__ from = x + o0;
          const T* __restrict__ also = kOther ? other + o0 : nullptr;
          T* __restrict__ dst = to + o0;
          SIMD
          for (Index i = 0; i < c; ++i) {
            const T whole = grad[i] * a[i];
            const T gm = from[i] * scale[i] + shift[i] > T(0) ? whole : T(0);
            T value = gm + from[i] * q[i] + p[i];
            if constexpr (kOther) value += also[i] * u[i];
            dst[i] = value;
          }
          continue;
        }
        const Index o0 = base + 2 * v * c, o1 = o0 + c, o2 = o0 + s.w * c, o3 = o2 + c;
        const T* __restrict__ x0 = x + o0;
        const T* __restrict__ x1 = x + o1;
        const T* __restrict__ x2 = x + o2;
        const T* __restrict__ x3 = x + o3;
        const T* __restrict__ v0 = kOther ? other + o0 : nullptr;
        const T* __restrict__ v1 = kOther ? other + o1 : nullptr;
        const T* __restrict__ v2 = kOther ? other + o2 : nullptr;
        const T* __restrict__ v3 = kOther ? other + o3 : nullptr;
        T* __restrict__ d0 = to + o0;
        T* __restrict__ d1 = to + o1;
        T* __restrict__ d2 = to + o2;
        T* __restrict__ d3 = to + o3;
        SIMD
        for (Index i = 0; i < c; ++i) {
          const T w = won[i], k = q[i], b = p[i], whole = grad[i] * a[i];
          T left = w * scale[i] + shift[i] > T(0) ? whole : T(0);
          const T y0 = x0[i], y1 = x1[i], y2 = x2[i], y3 = x3[i];
          T r0 = y0 * k + b, r1 = y1 * k + b, r2 = y2 * k + b, r3 = y3 * k + b;
          r0 += y0 == w ? left : T(0);
          left = y0 == w ? T(0) : left;
          r1 += y1 == w ? left : T(0);
          left = y1 == w ? T(0) : left;
          r2 += y2 == w ? left : T(0);
          left = y2 == w ? T(0) : left;
          r3 += y3 == w ? left : T(0);
          if constexpr (kOther) {
            const T e = u[i];
            r0 += v0[i] * e;
            r1 += v1[i] * e;
            r2 += v2[i] * e;
            r3 += v3[i] * e;
          }
          d0[i] = r0;
          d1[i] = r1;
          d2[i] = r2;
          d3[i] = r3;
        }
      }
      if (s.wo * pool < s.w)
        for (Index line = 0; line < pool; ++line) plain(base + (line * s.w + s.wo * pool) * c, s.w - s.wo * pool);
    }
  });
}

// Σ g' and Σ g' (picked - mean), where g' is the gradient that passes the ReLU.
template <typename T>
std::vector<double> pooled_sums(
    const T* g, const T* picked, const Shape& s, const T* mean_, const T* scale_, const T* shift_) {
  const Index c = s.c;
  return sums_over(s.pooled(), 2 * c, [&](Index begin, Index end, double* total) {
    std::vector<T> run(2 * c, T(0));
    for (Index from = begin; from < end; from += kRun) {
      T* __restrict__ a = run.data();
      T* __restrict__ q = a + c;
      const T* __restrict__ mean = mean_;
      const T* __restrict__ scale = scale_;
      const T* __restrict__ shift = shift_;
      for (Index p = from; p < std::min(end, from + kRun); ++p) {
        const T* __restrict__ grad = g + p * c;
        const T* __restrict__ won = picked + p * c;
        SIMD
        for (Index i = 0; i < c; ++i) {
          const T gm = won[i] * scale[i] + shift[i] > T(0) ? grad[i] : T(0);
          a[i] += gm;
          q[i] += gm * (won[i] - mean[i]);
        }
      }
      fold(run, total);
    }
  });
}

// The elements of a dense tensor at the winners, (N, C, Ho, Wo).
template <typename T>
void gather(const T* v, const T* x, const T* picked, const Shape& s, T* to) {
  const Index c = s.c;
  parallel_for(0, s.n * s.ho, 4, [&](Index first, Index last) {
    for (Index r = first; r < last; ++r)
      for (Index col = 0; col < s.wo; ++col) {
        const Index o = (((r / s.ho) * s.h + (r % s.ho) * 2) * s.w + 2 * col) * c;
        const T* __restrict__ x0 = x + o;
        const T* __restrict__ x1 = x0 + c;
        const T* __restrict__ x2 = x0 + s.w * c;
        const T* __restrict__ v0 = v + o;
        const T* __restrict__ v1 = v0 + c;
        const T* __restrict__ v2 = v0 + s.w * c;
        const T* __restrict__ v3 = v2 + c;
        const T* __restrict__ won = picked + (r * s.wo + col) * c;
        T* __restrict__ dst = to + (r * s.wo + col) * c;
        SIMD
        for (Index i = 0; i < c; ++i) {
          const T w0 = v0[i], w1 = v1[i], w2 = v2[i];
          T value = v3[i];
          value = x2[i] == won[i] ? w2 : value;
          value = x1[i] == won[i] ? w1 : value;
          value = x0[i] == won[i] ? w0 : value;
          dst[i] = value;
        }
      }
  });
}

// x (N, C, H, W) → y and picked (N, C, H // pool, W // pool), mean and 1 / standard deviation (C,).
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& x, const Tensor& weight, const Tensor& bias, double eps, Index pool) {
  const Shape s(x, pool);
  Tensor y = channels_last(x, s.n, s.c, s.ho, s.wo);
  Tensor picked = pool == 1 ? empty(x, {0}) : channels_last(x, s.n, s.c, s.ho, s.wo);
  Tensor mean = empty(x, {s.c}), rstd = empty(x, {s.c});
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const T* from = in<T>(x);
    statistics<T>(from, s, eps, out<T>(mean), out<T>(rstd));
    std::vector<T> k(2 * s.c);
    affine<T>(in<T>(weight), in<T>(bias), in<T>(mean), in<T>(rstd), s.c, k.data(), k.data() + s.c);
    if (pool == 1)
      rectify<T>(from, s, k.data(), k.data() + s.c, out<T>(y));
    else
      pool_rows<T>(from, s, k.data(), k.data() + s.c, out<T>(y), out<T>(picked));
  });
  return {y, picked, mean, rstd};
}

// The gradients of x, weight and bias from that of y.
std::tuple<Tensor, Tensor, Tensor> backward(
    const Tensor& g, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& picked_,
    const Tensor& mean, const Tensor& rstd, Index pool) {
  const Shape s(x, pool);
  const Tensor& picked = pool == 1 ? x : picked_;
  Tensor gx = channels_last(x, s.n, s.c, s.h, s.w), gw = empty_like(mean), gb = empty_like(mean);
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const Index c = s.c;
    std::vector<T> k(5 * c);
    T *scale = k.data(), *shift = scale + c, *q = shift + c, *p = q + c;
    affine<T>(in<T>(weight), in<T>(bias), in<T>(mean), in<T>(rstd), c, scale, shift);
    auto sums = pooled_sums<T>(in<T>(g), in<T>(picked), s, in<T>(mean), scale, shift);
    const double m = static_cast<double>(s.pixels());
    for (Index i = 0; i < c; ++i) {
      const double r = in<T>(rstd)[i], a = static_cast<double>(in<T>(weight)[i]) * r;
      const double to_weight = r * sums[c + i], slope = -a * r * to_weight / m;
      out<T>(gb)[i] = static_cast<T>(sums[i]);
      out<T>(gw)[i] = static_cast<T>(to_weight);
      q[i] = static_cast<T>(slope);
      p[i] = static_cast<T>(-a * sums[i] / m - slope * in<T>(mean)[i]);
    }
    scatter<T, false>(
        in<T>(g), in<T>(x), nullptr, in<T>(picked), s, scale, shift, scale, nullptr, q, p, out<T>(gx));
  });
  return {gx, gw, gb};
}

// The gradients of g, x and weight (the bias has none) from those of the three outputs of `backward`: v, v_weight, v_bias.
std::tuple<Tensor, Tensor, Tensor> double_backward(
    const Tensor& v, const Tensor& v_weight, const Tensor& v_bias, const Tensor& g, const Tensor& x,
    const Tensor& weight, const Tensor& bias, const Tensor& picked_, const Tensor& mean, const Tensor& rstd,
    Index pool) {
  const Shape s(x, pool);
  const Tensor& picked = pool == 1 ? x : picked_;
  Tensor gg = channels_last(x, s.n, s.c, s.ho, s.wo), gx = channels_last(x, s.n, s.c, s.h, s.w);
  Tensor gw = empty_like(mean);
  Tensor won = pool == 1 ? v : channels_last(x, s.n, s.c, s.ho, s.wo);
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const Index c = s.c;
    std::vector<T> k(9 * c);
    T *scale = k.data(), *shift = scale + c, *a = shift + c, *u = a + c, *q = u + c, *p = q + c;
    T *slope = p + c, *level = slope + c;
    affine<T>(in<T>(weight), in<T>(bias), in<T>(mean), in<T>(rstd), c, scale, shift);
    if (pool != 1) gather<T>(in<T>(v), in<T>(x), in<T>(picked), s, out<T>(won));
    const T *grads = in<T>(g), *wins = in<T>(picked), *vwins = in<T>(won), *mu = in<T>(mean);
    auto dense = sums_over(s.pixels(), 2 * c, [&](Index begin, Index end, double* total) {
      std::vector<T> run(2 * c, T(0));
      for (Index from = begin; from < end; from += kRun) {
        T* __restrict__ sum = run.data();
        T* __restrict__ dot = sum + c;
        for (Index pixel = from; pixel < std::min(end, from + kRun); ++pixel) {
          const T* __restrict__ vs = in<T>(v) + pixel * c;
          const T* __restrict__ xs = in<T>(x) + pixel * c;
          SIMD
          for (Index i = 0; i < c; ++i) {
            sum[i] += vs[i];
            dot[i] += vs[i] * (xs[i] - mu[i]);
          }
        }
        fold(run, total);
      }
    });
    auto sparse = sums_over(s.pooled(), 3 * c, [&](Index begin, Index end, double* total) {
      std::vector<T> run(3 * c, T(0));
      for (Index from = begin; from < end; from += kRun) {
        T* __restrict__ sum = run.data();
        T* __restrict__ dot = sum + c;
        T* __restrict__ both = dot + c;
        for (Index pixel = from; pixel < std::min(end, from + kRun); ++pixel) {
          const T* __restrict__ grad = grads + pixel * c;
          const T* __restrict__ win = wins + pixel * c;
          const T* __restrict__ vwin = vwins + pixel * c;
          SIMD
          for (Index i = 0; i < c; ++i) {
            const T whole = grad[i];
            const T gm = win[i] * scale[i] + shift[i] > T(0) ? whole : T(0);
            sum[i] += gm;
            dot[i] += gm * (win[i] - mu[i]);
            both[i] += gm * vwin[i];
          }
        }
        fold(run, total);
      }
    });
    const double m = static_cast<double>(s.pixels());
    for (Index i = 0; i < c; ++i) {
      const double r = in<T>(rstd)[i], w = in<T>(weight)[i], vw = in<T>(v_weight)[i], vb = in<T>(v_bias)[i];
      const double sum_v = dense[i], dot_v = r * dense[c + i];
      const double sum_g = sparse[i], dot_g = r * sparse[c + i];
      const double kernel = sparse[2 * c + i] - (sum_g * sum_v + dot_g * dot_v) / m;
      out<T>(gw)[i] = static_cast<T>(r * kernel);
      // The gradient of the normalised input is `direct` at the winners and v · `through` everywhere.
      const double direct = vw - w * r * dot_v / m, through = -w * r * dot_g / m;
      const double sum_h = through * sum_v + direct * sum_g, dot_h = through * dot_v + direct * dot_g;
      const double tilt = -r * r * (dot_h + w * r * kernel) / m;
      a[i] = static_cast<T>(r * direct);
      u[i] = static_cast<T>(r * through);
      q[i] = static_cast<T>(tilt);
      p[i] = static_cast<T>(-r * sum_h / m - tilt * mu[i]);
      const double lean = r * direct;
      slope[i] = static_cast<T>(lean);
      level[i] = static_cast<T>(vb - w * r * sum_v / m - lean * mu[i]);
    }
    T* to = out<T>(gg);
    parallel_for(0, s.pooled(), 64, [&](Index first, Index last) {
      for (Index pixel = first; pixel < last; ++pixel) {
        const T* __restrict__ win = wins + pixel * c;
        const T* __restrict__ vwin = vwins + pixel * c;
        T* __restrict__ dst = to + pixel * c;
        SIMD
        for (Index i = 0; i < c; ++i) {
          const T value = scale[i] * vwin[i] + slope[i] * win[i] + level[i];
          dst[i] = win[i] * scale[i] + shift[i] > T(0) ? value : T(0);
        }
      }
    });
    scatter<T, true>(grads, in<T>(x), in<T>(v), wins, s, scale, shift, a, u, q, p, out<T>(gx));
  });
  return {gg, gx, gw};
}

// -- the first block, with its 3 × 3 convolution (no bias, padding 1) of images that want no gradient
//
// Its output is never kept. The mean and variance of each output channel follow from the mean and the second moments of the
// 3 × 3 patches, K = 9 · channels numbers each, and so do all terms of the backward passes that run over every pixel: what is left
// runs over the winners, whose convolution is computed again.

template <typename T>
typename Lanes<T>::V load(const T* from, Index count) {
  typename Lanes<T>::V v{};
  if (count >= Lanes<T>::n)
    __builtin_memcpy(&v, from, sizeof(v));
  else
    for (Index i = 0; i < count; ++i) v[i] = from[i];
  return v;
}

template <typename T>
void store(T* to, const typename Lanes<T>::V& v, Index count) {
  if (count >= Lanes<T>::n)
    __builtin_memcpy(to, &v, sizeof(v));
  else
    for (Index i = 0; i < count; ++i) to[i] = v[i];
}

// Images (N, channels, H, W) with a border of zeros, plane by plane.
template <typename T, typename U>
std::vector<U> bordered(const T* x, Index planes, Index h, Index w) {
  std::vector<U> to(planes * (h + 2) * (w + 2), U(0));
  for (Index p = 0; p < planes; ++p)
    for (Index r = 0; r < h; ++r)
      for (Index i = 0; i < w; ++i) to[(p * (h + 2) + r + 1) * (w + 2) + i + 1] = static_cast<U>(x[(p * h + r) * w + i]);
  return to;
}

// Σ patch (K) and then Σ patch · patchᵀ (K × K) over all pixels.
template <typename T>
std::vector<double> patch_moments(const T* x, Index n, Index channels, Index h, Index w) {
  const Index k = 9 * channels, pairs = k * (k + 1) / 2, size = k + k * k;
  return sums_over(n, size, [&](Index begin, Index end, double* total) {
    std::vector<double> run((k + pairs) * w);
    std::vector<const double*> rows(k);
    for (Index image = begin; image < end; ++image) {
      const auto planes = bordered<T, double>(x + image * channels * h * w, channels, h, w);
      std::fill(run.begin(), run.end(), 0.0);
      for (Index y = 0; y < h; ++y) {
        for (Index i = 0; i < k; ++i)
          rows[i] = planes.data() + ((i / 9) * (h + 2) + y + i % 9 / 3) * (w + 2) + i % 3;
        double* __restrict__ sum = run.data();
        for (Index i = 0; i < k; ++i)
          for (Index j = -1; j <= i; ++j, sum += w) {
            const double* __restrict__ a = rows[i];
            const double* __restrict__ b = rows[std::max<Index>(j, 0)];
            if (j < 0) {
              SIMD
              for (Index c = 0; c < w; ++c) sum[c] += a[c];
            } else {
              SIMD
              for (Index c = 0; c < w; ++c) sum[c] += a[c] * b[c];
            }
          }
      }
      const double* sum = run.data();
      for (Index i = 0; i < k; ++i)
        for (Index j = -1; j <= i; ++j, sum += w) {
          double found = 0;
          for (Index c = 0; c < w; ++c) found += sum[c];
          if (j < 0)
            total[i] += found;
          else
            total[k + i * k + j] += found;
          if (j >= 0 && j < i) total[k + j * k + i] += found;
        }
    }
  });
}

// Weights (C, K) in groups of as many channels as a vector has lanes: (groups, K) vectors.
template <typename T>
std::vector<typename Lanes<T>::V> grouped(const T* weight, Index c, Index k) {
  constexpr Index lanes = Lanes<T>::n;
  const Index groups = (c + lanes - 1) / lanes;
  std::vector<typename Lanes<T>::V> to(groups * k, typename Lanes<T>::V{});
  for (Index i = 0; i < c; ++i)
    for (Index j = 0; j < k; ++j) to[(i / lanes) * k + j][i % lanes] = weight[i * k + j];
  return to;
}

// The four convolutions of a window whose upper left input, with the border, is `at`.
template <typename T, int kChannels>
struct Window {
  using V = typename Lanes<T>::V;
  V u[4];
  Window(const T* at, Index line, Index plane, const V* w) : u{} {
#pragma GCC unroll 27
    for (int i = 0; i < 9 * kChannels; ++i) {
      const T* p = at + (i / 9) * plane + (i % 9 / 3) * line + i % 3;
      u[0] += w[i] * p[0];
      u[1] += w[i] * p[1];
      u[2] += w[i] * p[line];
      u[3] += w[i] * p[line + 1];
    }
  }
};

// The winner of a window; `pick` gives its one of four, `split` the four shares of what goes to it.
template <typename T>
struct Winner {
  using V = typename Lanes<T>::V;
  using Mask = decltype(V{} > V{});
  V z;
  Mask m1, m2, m3;
  Winner(const V* u, const V& scale, const V& shift) {
    z = u[0] * scale + shift;
    const V z1 = u[1] * scale + shift, z2 = u[2] * scale + shift, z3 = u[3] * scale + shift;
    m1 = z1 > z;
    z = m1 ? z1 : z;
    m2 = z2 > z;
    z = m2 ? z2 : z;
    m3 = z3 > z;
    z = m3 ? z3 : z;
  }
  V pick(const V* u) const {
    const V one = m1 ? u[1] : u[0], two = m2 ? u[2] : one;
    return m3 ? u[3] : two;
  }
  void split(const V& whole, V* to) const {
    const V none{};
    to[3] = m3 ? whole : none;
    V rest = m3 ? none : whole;
    to[2] = m2 ? rest : none;
    rest = m2 ? none : rest;
    to[1] = m1 ? rest : none;
    to[0] = m1 ? none : rest;
  }
};

struct FirstShape {
  Index n, channels, h, w, c, ho, wo, k;
  FirstShape(const Tensor& x, const Tensor& weight)
      : n(x.size(0)), channels(x.size(1)), h(x.size(2)), w(x.size(3)), c(weight.size(0)), ho(h / 2), wo(w / 2),
        k(9 * channels) {}
};

template <typename T>
struct Scales {
  std::vector<T> scale, shift;
  Scales(const Tensor& weight, const Tensor& bias, const Tensor& mean, const Tensor& rstd)
      : scale(mean.numel()), shift(mean.numel()) {
    affine<T>(in<T>(weight), in<T>(bias), in<T>(mean), in<T>(rstd), mean.numel(), scale.data(), shift.data());
  }
};

// `body(window, winner, offset into (N, Ho, Wo, C), first channel, channels, upper left input)` for the windows of rows.
template <typename T, int kChannels, typename Body>
void over_windows(
    const std::vector<T>& planes, const std::vector<typename Lanes<T>::V>& weight, const Scales<T>& scales,
    const FirstShape& s, Index row, Index first, const Body& body) {
  constexpr Index lanes = Lanes<T>::n;
  const Index line = s.w + 2, plane = (s.h + 2) * line, count = std::min(lanes, s.c - first);
  const auto scale = load<T>(scales.scale.data() + first, count), shift = load<T>(scales.shift.data() + first, count);
  const auto* w = weight.data() + first / lanes * s.k;
  const T* at = planes.data() + row / s.ho * s.channels * plane + row % s.ho * 2 * line;
  for (Index v = 0; v < s.wo; ++v) {
    const Window<T, kChannels> window(at + 2 * v, line, plane, w);
    body(window, Winner<T>(window.u, scale, shift), (row * s.wo + v) * s.c + first, count, at + 2 * v);
  }
}

template <typename T, int kChannels>
void first_values(
    const std::vector<T>& planes, const T* weight, const Scales<T>& scales, const FirstShape& s, T* y) {
  const auto w = grouped<T>(weight, s.c, s.k);
  parallel_for(0, s.n * s.ho, 8, [&](Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      for (Index first = 0; first < s.c; first += Lanes<T>::n)
        over_windows<T, kChannels>(planes, w, scales, s, row, first, [&](const auto&, const auto& winner, Index o, Index count, const T*) {
          const typename Lanes<T>::V none{};
          store<T>(y + o, winner.z <= none ? none : winner.z, count);
        });
  });
}

// For each channel Σ g' (1) and Σ g' · patch at the winner (K): (C, 1 + K).
template <typename T, int kChannels>
std::vector<double> first_sums(
    const std::vector<T>& planes, const T* weight, const Scales<T>& scales, const FirstShape& s, const T* g) {
  using V = typename Lanes<T>::V;
  constexpr int k = 9 * kChannels;
  const auto w = grouped<T>(weight, s.c, s.k);
  return sums_over(s.n * s.ho, s.c * (1 + k), [&](Index begin, Index end, double* total) {
    const Index line = s.w + 2, plane = (s.h + 2) * line;
    for (Index row = begin; row < end; ++row)
      for (Index first = 0; first < s.c; first += Lanes<T>::n) {
        V sum{}, dots[k] = {};
        over_windows<T, kChannels>(
            planes, w, scales, s, row, first, [&](const auto&, const auto& winner, Index o, Index count, const T* at) {
              const V none{}, gm = winner.z > none ? load<T>(g + o, count) : none;
              V share[4];
              winner.split(gm, share);
              sum += gm;
#pragma GCC unroll 27
              for (int i = 0; i < k; ++i) {
                const T* p = at + (i / 9) * plane + (i % 9 / 3) * line + i % 3;
                dots[i] += share[0] * p[0] + share[1] * p[1] + share[2] * p[line] + share[3] * p[line + 1];
              }
            });
        for (Index i = 0; i < std::min(Lanes<T>::n, s.c - first); ++i) {
          double* to = total + (first + i) * (1 + k);
          to[0] += sum[i];
          for (int j = 0; j < k; ++j) to[1 + j] += dots[j][i];
        }
      }
  });
}

// The gradient of g: (scale · v + lean · u + level) at winners above 0, with v the convolution by `other`.
template <typename T, int kChannels>
void first_to_g(
    const std::vector<T>& planes, const T* weight, const T* other, const Scales<T>& scales, const T* lean,
    const T* level, const FirstShape& s, T* to) {
  using V = typename Lanes<T>::V;
  const auto w = grouped<T>(weight, s.c, s.k), w2 = grouped<T>(other, s.c, s.k);
  parallel_for(0, s.n * s.ho, 8, [&](Index begin, Index end) {
    const Index line = s.w + 2, plane = (s.h + 2) * line;
    for (Index row = begin; row < end; ++row)
      for (Index first = 0; first < s.c; first += Lanes<T>::n) {
        const Index lanes = std::min(Lanes<T>::n, s.c - first);
        const V a = load<T>(scales.scale.data() + first, lanes), b = load<T>(lean + first, lanes);
        const V d = load<T>(level + first, lanes);
        over_windows<T, kChannels>(
            planes, w, scales, s, row, first, [&](const auto& window, const auto& winner, Index o, Index count, const T* at) {
              const Window<T, kChannels> also(at, line, plane, w2.data() + first / Lanes<T>::n * s.k);
              const V none{}, value = winner.pick(also.u) * a + winner.pick(window.u) * b + d;
              store<T>(to + o, winner.z > none ? value : none, count);
            });
      }
  });
}

template <typename Call>
void by_channels(Index channels, const Call& call) {
  if (channels == 1)
    call(std::integral_constant<int, 1>());
  else if (channels == 2)
    call(std::integral_constant<int, 2>());
  else
    call(std::integral_constant<int, 3>());
}

// a · M · b for a symmetric K × K matrix.
template <typename T, typename U>
double form(const T* a, const double* matrix, const U* b, Index k) {
  double sum = 0;
  for (Index i = 0; i < k; ++i) {
    double row = 0;
    for (Index j = 0; j < k; ++j) row += matrix[i * k + j] * static_cast<double>(b[j]);
    sum += static_cast<double>(a[i]) * row;
  }
  return sum;
}

template <typename T>
double dot(const T* a, const double* b, Index k) {
  double sum = 0;
  for (Index i = 0; i < k; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// Images x (N, 1 … 3, H, W), plain; kernel (C, channels, 3, 3) → y (N, C, H // 2, W // 2), the moments of the patches, mean, rstd.
std::tuple<Tensor, Tensor, Tensor, Tensor> first_forward(
    const Tensor& x, const Tensor& kernel, const Tensor& weight, const Tensor& bias, double eps) {
  const FirstShape s(x, kernel);
  Tensor y = channels_last(x, s.n, s.c, s.ho, s.wo), mean = empty(x, {s.c}), rstd = empty_like(mean);
  Tensor moments = empty_of(x, ScalarType::Double, MemoryFormat::Contiguous, {s.k + s.k * s.k});
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    auto sums = patch_moments<T>(in<T>(x), s.n, s.channels, s.h, s.w);
    const double m = static_cast<double>(s.n * s.h * s.w);
    for (auto& value : sums) value /= m;
    double *centre = sums.data(), *spread = centre + s.k;
    for (Index i = 0; i < s.k; ++i)
      for (Index j = 0; j < s.k; ++j) spread[i * s.k + j] -= centre[i] * centre[j];
    std::copy(sums.begin(), sums.end(), out<double>(moments));
    for (Index i = 0; i < s.c; ++i) {
      const T* w = in<T>(kernel) + i * s.k;
      out<T>(mean)[i] = static_cast<T>(dot(w, centre, s.k));
      out<T>(rstd)[i] = static_cast<T>(1.0 / std::sqrt(std::max(form(w, spread, w, s.k), 0.0) + eps));
    }
    const Scales<T> scales(weight, bias, mean, rstd);
    const auto planes = bordered<T, T>(in<T>(x), s.n * s.channels, s.h, s.w);
    by_channels(s.channels, [&](auto channels) {
      first_values<T, channels.value>(planes, in<T>(kernel), scales, s, out<T>(y));
    });
  });
  return {y, moments, mean, rstd};
}

// The gradients of kernel, weight and bias, and the sums (C, 1 + K) that the next pass needs again.
std::tuple<Tensor, Tensor, Tensor, Tensor> first_backward(
    const Tensor& g, const Tensor& x, const Tensor& kernel, const Tensor& weight, const Tensor& bias,
    const Tensor& moments, const Tensor& mean, const Tensor& rstd) {
  const FirstShape s(x, kernel);
  Tensor gk = empty_like(kernel), gw = empty_like(mean), gb = empty_like(mean);
  Tensor sums = empty(moments, {s.c, 1 + s.k});
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const Scales<T> scales(weight, bias, mean, rstd);
    const auto planes = bordered<T, T>(in<T>(x), s.n * s.channels, s.h, s.w);
    by_channels(s.channels, [&](auto channels) {
      const auto found = first_sums<T, channels.value>(planes, in<T>(kernel), scales, s, in<T>(g));
      std::copy(found.begin(), found.end(), out<double>(sums));
    });
    const double *centre = in<double>(moments), *spread = centre + s.k;
    for (Index i = 0; i < s.c; ++i) {
      const double *sum = in<double>(sums) + i * (1 + s.k), *patches = sum + 1;
      const T* w = in<T>(kernel) + i * s.k;
      const double r = in<T>(rstd)[i], a = r * in<T>(weight)[i];
      const double to_weight = r * (dot(w, patches, s.k) - dot(w, centre, s.k) * sum[0]);
      out<T>(gb)[i] = static_cast<T>(sum[0]);
      out<T>(gw)[i] = static_cast<T>(to_weight);
      for (Index j = 0; j < s.k; ++j) {
        const double slope = dot(w, spread + j * s.k, s.k);  // of the normalised output, over r
        out<T>(gk)[i * s.k + j] =
            static_cast<T>(a * (patches[j] - sum[0] * centre[j] - to_weight * r * slope));
      }
    }
  });
  return {gk, gw, gb, sums};
}

// The gradients of g, kernel and weight from those of the first three outputs of `first_backward`.
std::tuple<Tensor, Tensor, Tensor> first_double_backward(
    const Tensor& v_kernel, const Tensor& v_weight, const Tensor& v_bias, const Tensor& g, const Tensor& x,
    const Tensor& kernel, const Tensor& weight, const Tensor& bias, const Tensor& moments, const Tensor& mean,
    const Tensor& rstd, const Tensor& sums) {
  const FirstShape s(x, kernel);
  Tensor gg = channels_last(x, s.n, s.c, s.ho, s.wo), gk = empty_like(kernel), gw = empty_like(mean);
  FLOATING_TYPES(x, [&] {
    using T = scalar_t;
    const Scales<T> scales(weight, bias, mean, rstd);
    const double *centre = in<double>(moments), *spread = centre + s.k;
    const double m = static_cast<double>(s.n * s.h * s.w);
    std::vector<T> lean(s.c), level(s.c);
    for (Index i = 0; i < s.c; ++i) {
      const double *sum = in<double>(sums) + i * (1 + s.k), *patches = sum + 1;
      const T *k = in<T>(kernel) + i * s.k, *vk = in<T>(v_kernel) + i * s.k;
      const double r = in<T>(rstd)[i], w = in<T>(weight)[i], vw = in<T>(v_weight)[i], vb = in<T>(v_bias)[i];
      const double mu = dot(k, centre, s.k), mean_v = dot(vk, centre, s.k);
      // As in `double_backward`, with sums over all pixels from the moments: those of v are divided by their number here.
      const double dot_v = r * form(vk, spread, k, s.k);
      const double sum_g = sum[0], dot_g = r * (dot(k, patches, s.k) - mu * sum_g);
      const double inner = dot(vk, patches, s.k) - sum_g * mean_v - dot_g * dot_v;
      out<T>(gw)[i] = static_cast<T>(r * inner);
      const double direct = vw - w * r * dot_v, through = -w * r * dot_g / m;
      const double dot_h = through * dot_v * m + direct * dot_g;
      const double tilt = -r * r * (dot_h + w * r * inner) / m;
      lean[i] = static_cast<T>(r * direct);
      level[i] = static_cast<T>(vb - w * r * mean_v - r * direct * mu);
      for (Index j = 0; j < s.k; ++j)
        out<T>(gk)[i * s.k + j] = static_cast<T>(
            r * direct * (patches[j] - sum_g * centre[j]) +
            m * (r * through * dot(vk, spread + j * s.k, s.k) + tilt * dot(k, spread + j * s.k, s.k)));
    }
    const auto planes = bordered<T, T>(in<T>(x), s.n * s.channels, s.h, s.w);
    by_channels(s.channels, [&](auto channels) {
      first_to_g<T, channels.value>(
          planes, in<T>(kernel), in<T>(v_kernel), scales, lean.data(), level.data(), s, out<T>(gg));
    });
  });
  return {gg, gk, gw};
}

}  // namespace

STABLE_TORCH_LIBRARY(mapsto_norm_pool, library) {
  library.def("forward(Tensor x, Tensor weight, Tensor bias, float eps, int pool) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "backward(Tensor g, Tensor x, Tensor weight, Tensor bias, Tensor picked, Tensor mean, Tensor rstd, int pool)"
      " -> (Tensor, Tensor, Tensor)");
  library.def(
      "double_backward(Tensor v, Tensor v_weight, Tensor v_bias, Tensor g, Tensor x, Tensor weight, Tensor bias,"
      " Tensor picked, Tensor mean, Tensor rstd, int pool) -> (Tensor, Tensor, Tensor)");
  library.def(
      "first_forward(Tensor x, Tensor kernel, Tensor weight, Tensor bias, float eps)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "first_backward(Tensor g, Tensor x, Tensor kernel, Tensor weight, Tensor bias, Tensor moments, Tensor mean,"
      " Tensor rstd) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "first_double_backward(Tensor v_kernel, Tensor v_weight, Tensor v_bias, Tensor g, Tensor x, Tensor kernel,"
      " Tensor weight, Tensor bias, Tensor moments, Tensor mean, Tensor rstd, Tensor sums)"
      " -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(mapsto_norm_pool, CPU, library) {
  library.impl("forward", TORCH_BOX(&forward));
  library.impl("backward", TORCH_BOX(&backward));
  library.impl("double_backward", TORCH_BOX(&double_backward));
  library.impl("first_forward", TORCH_BOX(&first_forward));
  library.impl("first_backward", TORCH_BOX(&first_backward));
  library.impl("first_double_backward", TORCH_BOX(&first_double_backward));
}
