// What the kernels need of PyTorch, through its stable interface: ATen's own headers take most of a minute to compile.

#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::empty_like;
using torch::stable::parallel_for;
using torch::stable::Tensor;

inline Tensor empty_of(const Tensor& like, ScalarType type, MemoryFormat format, std::initializer_list<std::int64_t> sizes) {
  return torch::stable::empty(
      torch::headeronly::IntHeaderOnlyArrayRef(sizes.begin(), sizes.size()), type, torch::headeronly::Layout::Strided,
      like.device(), false, format);
}

inline Tensor empty(const Tensor& like, std::initializer_list<std::int64_t> sizes) {
  return empty_of(like, like.scalar_type(), MemoryFormat::Contiguous, sizes);
}

inline Tensor empty_last(const Tensor& like, std::initializer_list<std::int64_t> sizes) {
  return empty_of(like, like.scalar_type(), MemoryFormat::ChannelsLast, sizes);
}

}  // namespace

// Runs a lambda in which `scalar_t` is the type of a tensor's elements.
#define FLOATING_TYPES(tensor, ...)                                       \
  do {                                                                    \
    const ScalarType type_of_it = (tensor).scalar_type();                 \
    if (type_of_it == ScalarType::Float) {                                \
      using scalar_t = float;                                             \
      __VA_ARGS__();                                                      \
    } else if (type_of_it == ScalarType::Double) {                        \
      using scalar_t = double;                                            \
      __VA_ARGS__();                                                      \
    } else {                                                              \
      throw std::runtime_error("the kernels take float32 and float64");   \
    }                                                                     \
  } while (false)
