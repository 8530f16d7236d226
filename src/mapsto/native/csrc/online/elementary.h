// Elementary functions and random numbers that give the same bits whatever the compiler vectorizes.
//
// Only additions, multiplications, divisions, square roots and moves of bits are used, each of which IEEE 754 rounds in one way.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace online {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// e to the power x, relative error below 4e-16; x is cut to [-700, 700].
inline double exponential(double x) {
  constexpr double kShift = 0x1.8p52;
  x = x < -700.0 ? -700.0 : x > 700.0 ? 700.0 : x;
  const double shifted = x * 1.4426950408889634074 + kShift;
  const double whole = shifted - kShift;
  const double r = (x - whole * 6.93147180369123816490e-01) - whole * 1.90821492927058770002e-10;
  double sum = 1.0 / 6227020800.0;
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  const auto power = (std::bit_cast<std::uint64_t>(shifted) + 1023) << 52;  // the low bits of `shifted` are `whole`
  return sum * std::bit_cast<double>(power);
}

// The natural logarithm of a normal positive x, absolute error below 1e-15 near 1, relative below 1e-15 elsewhere.
inline double logarithm(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  // exponent such that the mantissa lies in [1/sqrt(2), sqrt(2))
  const std::uint64_t moved = bits - 0x3fe6a09e667f3bcdULL;
  const auto exponent = static_cast<std::int64_t>(moved) >> 52;
  const double m = std::bit_cast<double>(bits - (static_cast<std::uint64_t>(exponent) << 52));
  // the whole number as a double without a conversion, which AVX2 lacks for 64 bits
  const double e = std::bit_cast<double>(0x4338000000000000ULL + static_cast<std::uint64_t>(exponent)) - 0x1.8p52;
  const double f = (m - 1.0) / (m + 1.0);
  const double s = f * f;
  double sum = 1.0 / 21.0;
  sum = sum * s + 1.0 / 19.0;
  sum = sum * s + 1.0 / 17.0;
  sum = sum * s + 1.0 / 15.0;
  sum = sum * s + 1.0 / 13.0;
  sum = sum * s + 1.0 / 11.0;
  sum = sum * s + 1.0 / 9.0;
  sum = sum * s + 1.0 / 7.0;
  sum = sum * s + 1.0 / 5.0;
  sum = sum * s + 1.0 / 3.0;
  sum = sum * s + 1.0;
  return e * 6.93147180559945309417e-01 + 2.0 * f * sum;
}

// Scores to probabilities, in place.
inline void softmax(double* scores, int count) {
  double most = scores[0];
  for (int k = 1; k < count; ++k) most = scores[k] > most ? scores[k] : most;
  for (int k = 0; k < count; ++k) scores[k] = exponential(scores[k] - most);
  double total = 0.0;
  for (int k = 0; k < count; ++k) total += scores[k];
  for (int k = 0; k < count; ++k) scores[k] /= total;
}

// The first of the largest.
inline int largest(const double* scores, int count) {
  int best = 0;
  for (int k = 1; k < count; ++k) best = scores[k] > scores[best] ? k : best;
  return best;
}

// SplitMix64: the state is a counter (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
struct Random {
  std::uint64_t counter = 0;

  std::uint64_t next() {
    std::uint64_t z = (counter += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  // A whole number below `bound`, which is small beside 2^32.
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(((next() >> 32) * bound) >> 32); }
  // In [-1, 1).
  double symmetric() { return static_cast<double>(static_cast<std::int64_t>(next()) >> 11) * 0x1p-52; }
};

}  // namespace online
