// Single precision products and functions that give the same bits whatever the processor: sums go on in one order, and nothing is contracted.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace language {

// Eight values, which GCC and Clang keep in one register or in two: no order is changed by it.
typedef float Eight __attribute__((vector_size(32)));

// The same in memory, wherever it lies.
typedef float Lying __attribute__((vector_size(32), aligned(4), may_alias));

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // no function that others call takes or gives one
#endif
inline Eight load(const float* from) { return *reinterpret_cast<const Lying*>(from); }
inline void store(float* to, Eight value) { *reinterpret_cast<Lying*>(to) = value; }

// e to the power x, relative error below 3e-7; x is cut to [-80, 80].
inline float exponential(float x) {
  constexpr float kShift = 0x1.8p23f;
  x = x < -80.0f ? -80.0f : x > 80.0f ? 80.0f : x;
  const float shifted = x * 1.44269504f + kShift;
  const float whole = shifted - kShift;
  const float r = (x - whole * 0.693145751953125f) - whole * 1.42860677e-6f;
  float sum = 1.0f / 5040.0f;
  sum = sum * r + 1.0f / 720.0f;
  sum = sum * r + 1.0f / 120.0f;
  sum = sum * r + 1.0f / 24.0f;
  sum = sum * r + 1.0f / 6.0f;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const std::uint32_t power = (std::bit_cast<std::uint32_t>(shifted) + 127u) << 23;  // the low bits of `shifted` are `whole`
  return sum * std::bit_cast<float>(power);
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
inline float tangent(float x) { return 2.0f / (1.0f + exponential(-2.0f * x)) - 1.0f; }

template <int kRows, int kWide>
inline void add_product_block(float* c, std::size_t ldc, const float* a, std::size_t by_row, std::size_t by_term, const float* b,
                              std::size_t ldb, int terms) {
  Eight sums[kRows][kWide];
  for (int i = 0; i < kRows; ++i)
    for (int w = 0; w < kWide; ++w) sums[i][w] = load(c + i * ldc + 8 * w);
  for (int k = 0; k < terms; ++k) {
    Eight row[kWide];
    for (int w = 0; w < kWide; ++w) row[w] = load(b + k * ldb + 8 * w);
    for (int i = 0; i < kRows; ++i) {
      const float factor = a[i * by_row + k * by_term];
      for (int w = 0; w < kWide; ++w) sums[i][w] += factor * row[w];
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int w = 0; w < kWide; ++w) store(c + i * ldc + 8 * w, sums[i][w]);
}

// C (rows, columns) += A (rows, terms) · B (terms, columns); A's value (i, k) is a[i * by_row + k * by_term]. Columns are a multiple of 16.
// Each value's terms are added one after the other, so that how many rows are worked out together changes no bit.
inline void add_product(float* c, std::size_t ldc, const float* a, std::size_t by_row, std::size_t by_term, const float* b,
                        std::size_t ldb, int rows, int terms, int columns) {
  int i = 0;
  for (; i + 4 <= rows; i += 4)
    for (int n = 0; n < columns; n += 16)
      add_product_block<4, 2>(c + i * ldc + n, ldc, a + i * by_row, by_row, by_term, b + n, ldb, terms);
  for (; i < rows; ++i) {
    int n = 0;
    for (; n + 64 <= columns; n += 64)
      add_product_block<1, 8>(c + i * ldc + n, ldc, a + i * by_row, by_row, by_term, b + n, ldb, terms);
    for (; n < columns; n += 16)
      add_product_block<1, 2>(c + i * ldc + n, ldc, a + i * by_row, by_row, by_term, b + n, ldb, terms);
  }
}

// Sum of the products of two rows of a multiple of 8 values, in an order that is always the same.
inline float dot(const float* a, const float* b, int count) {
  Eight sums = load(a) * load(b);
  for (int k = 8; k < count; k += 8) sums += load(a + k) * load(b + k);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

}  // namespace language
