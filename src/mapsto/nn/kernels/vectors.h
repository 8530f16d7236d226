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

}  // namespace
