// Linear members: softmax regression by AdaGrad or by gradient descent, and recursive least squares. For values they minimise squared errors.
//
// Weights lie input by input, so that inputs that are 0 cost nothing and classes are worked out at once.
#pragma once

#include <vector>

#include "elementary.h"
#include "inputs.h"

namespace online {

using Filled = std::vector<std::int32_t>;

inline int padded(int outputs) { return (outputs + 3) / 4 * 4; }

// Rows of `outputs` padded to a multiple of four, which keep what they held when they grow.
inline void resize_rows(std::vector<double>& rows, int inputs, int from, int to) {
  if (from == to) {
    rows.resize(static_cast<std::size_t>(inputs) * to, 0.0);
    return;
  }
  std::vector<double> wider(static_cast<std::size_t>(inputs) * to, 0.0);
  const std::size_t known = from ? rows.size() / from : 0;
  for (std::size_t i = 0; i < known; ++i)
    for (int k = 0; k < from; ++k) wider[i * to + k] = rows[i * from + k];
  rows.swap(wider);
}

// One input's part of W ← W − η g ⊘ √(G + ε), where G ← λ G + g ⊙ g (Duchi, Hazan and Singer, 2011; with λ < 1 it forgets).
inline void adagrad(double* weights, double* squares, double input, const double* error, int outputs, double rate, double decay) {
  for (int k = 0; k < outputs; ++k) {
    const double g = input * error[k];
    squares[k] = decay * squares[k] + g * g;
    weights[k] -= rate * g / std::sqrt(squares[k] + 1e-8);
  }
}

// Descent along the gradient: by AdaGrad, or as it is where `adapts` is false.
class Gradient {
 public:
  Gradient(double rate, double decay, bool adapts) : rate_(rate), decay_(decay), adapts_(adapts) {}

  void grow(int inputs, int outputs) {
    const int wide = padded(outputs);
    if (static_cast<int>(weights_.size()) == inputs * wide && wide == stride_) return;
    resize_rows(weights_, inputs, stride_, wide);
    if (adapts_) resize_rows(squares_, inputs, stride_, wide);
    stride_ = wide;
  }

  // Scores (outputs,): probabilities, or the value.
  void answer(const std::vector<double>& z, const Filled& filled, int outputs, bool values, double* p) {
    sums_.assign(stride_, 0.0);
    for (const std::int32_t j : filled) {
      const double* row = weights_.data() + static_cast<std::size_t>(j) * stride_;
      const double input = z[j];
      for (int k = 0; k < stride_; ++k) sums_[k] += input * row[k];
    }
    std::copy(sums_.begin(), sums_.begin() + outputs, p);
    if (!values) softmax(p, outputs);
  }

  // `error` (outputs,): scores less the label's.
  void learn(const std::vector<double>& z, const Filled& filled, const double* error, int outputs) {
    for (const std::int32_t j : filled) {
      double* row = weights_.data() + static_cast<std::size_t>(j) * stride_;
      const double input = z[j];
      if (adapts_) {
        adagrad(row, squares_.data() + static_cast<std::size_t>(j) * stride_, input, error, outputs, rate_, decay_);
      } else {
        for (int k = 0; k < outputs; ++k) row[k] -= rate_ * input * error[k];
      }
    }
  }

  template <class Visitor>
  void state(Visitor& visit, int inputs, int outputs) {
    visit("weights", weights_);
    if (adapts_) visit("squares", squares_);
    if constexpr (Visitor::restores) {
      stride_ = padded(outputs);
      const std::size_t size = static_cast<std::size_t>(inputs) * stride_;
      require(weights_.size() == size && (!adapts_ || squares_.size() == size), "linear weights are of another shape");
      require_finite(weights_, "a linear weight is NaN");
      require_finite(squares_, "a linear weight is NaN");
      for (const double square : squares_) require(square >= 0.0, "a sum of squares is negative");
    }
  }

 private:
  double rate_, decay_;
  bool adapts_;
  int stride_ = 0;
  std::vector<double> weights_, squares_, sums_;
};

// Recursive least squares without forgetting: P ← P − g gᵀ / (1 + zᵀ g), W ← W + g (t − Wᵀ z)ᵀ / (1 + zᵀ g), with g = P z.
class LeastSquares {
 public:
  static constexpr int kMost = 128;  // inputs, since the work is their square

  void grow(int inputs, int outputs) {
    inputs = std::min(inputs, kMost);
    const int wide = padded(outputs);
    if (inputs == inputs_ && wide == stride_) return;
    resize_rows(weights_, inputs, stride_, wide);
    stride_ = wide;
    std::vector<double> larger(static_cast<std::size_t>(inputs) * inputs, 0.0);
    for (int i = 0; i < inputs; ++i)
      for (int j = 0; j < inputs; ++j)
        larger[i * inputs + j] = i < inputs_ && j < inputs_ ? inverse_[i * inputs_ + j] : i == j ? 1.0 : 0.0;
    inverse_.swap(larger);
    inputs_ = inputs;
  }

  // The targets' estimates (outputs,), for classes without what is negative and summing to 1.
  void answer(const std::vector<double>& z, const Filled& filled, int outputs, bool values, double* p) {
    sums_.assign(stride_, 0.0);
    for (const std::int32_t j : filled) {
      if (j >= inputs_) continue;
      const double* row = weights_.data() + static_cast<std::size_t>(j) * stride_;
      for (int k = 0; k < stride_; ++k) sums_[k] += z[j] * row[k];
    }
    if (values) {
      p[0] = sums_[0];
      return;
    }
    double total = 0.0;
    for (int k = 0; k < outputs; ++k) {
      p[k] = sums_[k] > 0.0 ? sums_[k] : 0.0;
      total += p[k];
    }
    for (int k = 0; k < outputs; ++k) p[k] = total > 0.0 ? p[k] / total : 1.0 / outputs;
  }

  // `target` (outputs,).
  void learn(const std::vector<double>& z, const Filled& filled, const double* target, int outputs) {
    gain_.assign(inputs_, 0.0);
    sums_.assign(stride_, 0.0);
    for (const std::int32_t j : filled) {
      if (j >= inputs_) continue;
      const double* row = inverse_.data() + static_cast<std::size_t>(j) * inputs_;  // symmetric
      for (int i = 0; i < inputs_; ++i) gain_[i] += z[j] * row[i];
      const double* weights = weights_.data() + static_cast<std::size_t>(j) * stride_;
      for (int k = 0; k < stride_; ++k) sums_[k] += z[j] * weights[k];
    }
    double spread = 1.0;
    for (const std::int32_t j : filled)
      if (j < inputs_) spread += z[j] * gain_[j];
    const double share = 1.0 / spread;
    for (int i = 0; i < inputs_; ++i) {
      const double step = gain_[i] * share;
      if (step == 0.0) continue;
      double* row = inverse_.data() + static_cast<std::size_t>(i) * inputs_;
      for (int j = 0; j < inputs_; ++j) row[j] -= step * gain_[j];
      double* weights = weights_.data() + static_cast<std::size_t>(i) * stride_;
      for (int k = 0; k < outputs; ++k) weights[k] += step * (target[k] - sums_[k]);
    }
  }

  template <class Visitor>
  void state(Visitor& visit, int inputs, int outputs) {
    visit("weights", weights_);
    visit("inverse", inverse_);
    if constexpr (Visitor::restores) {
      inputs_ = std::min(inputs, kMost);
      stride_ = padded(outputs);
      require(weights_.size() == static_cast<std::size_t>(inputs_) * stride_ && inverse_.size() == static_cast<std::size_t>(inputs_) * inputs_,
              "least squares are of another shape");
      require_finite(weights_, "a weight of least squares is NaN");
      require_finite(inverse_, "a weight of least squares is NaN");
    }
  }

 private:
  int inputs_ = 0, stride_ = 0;
  std::vector<double> weights_, inverse_, sums_, gain_;
};

}  // namespace online
