// The vectors of the machine that this is compiled for. A type that is wider than its registers would be taken apart in memory.

#pragma once

#include <cstdint>

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRegisters = 32;
#else
constexpr int kBytes = 16, kRegisters = 16;
#endif

template <typename T>
struct Lanes {
  typedef T V __attribute__((vector_size(kBytes)));
  static constexpr std::int64_t n = kBytes / sizeof(T);
};

template <typename T>
typename Lanes<T>::V load(const T* from) {
  typename Lanes<T>::V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <typename T>
void store(T* to, const typename Lanes<T>::V& v) { __builtin_memcpy(to, &v, sizeof(v)); }

// Rows and vectors of columns of a product that are summed at once, in registers.
constexpr int kRows = 6, kWide = kRegisters == 32 ? 4 : 2;

}  // namespace
