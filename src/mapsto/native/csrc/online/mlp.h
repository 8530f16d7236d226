// A network of one hidden layer of 64 ReLUs, trained by Adam on each event together with some that are replayed from the ring
// (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015).
#pragma once

#include <vector>

#include "elementary.h"
#include "inputs.h"
#include "linear.h"

namespace online {

constexpr int kHidden = 64;

class Mlp {
 public:
  static constexpr int kMost = 512;  // inputs

  explicit Mlp(std::uint64_t seed) : random_{seed} {}

  // How many events are replayed with one: fewer where there are many inputs.
  static int replayed(int inputs) {
    const int affordable = 7 * 64 / (inputs < 64 ? 64 : inputs);
    return affordable < 1 ? 1 : affordable;
  }
  std::uint32_t draw(std::uint32_t below) { return random_.below(below); }

  void grow(int inputs, int outputs) {
    inputs = std::min(inputs, kMost);
    const int wide = (outputs + 7) / 8 * 8;
    if (inputs == inputs_ && wide == stride_) return;
    const std::size_t known = first_.size();
    for (auto* part : {&first_, &first_mean_, &first_square_}) part->resize(static_cast<std::size_t>(inputs) * kHidden, 0.0f);
    // He's initialization, its scale that of the inputs there are by then
    for (std::size_t i = known; i < first_.size(); ++i)
      first_[i] = static_cast<float>(random_.symmetric() * std::sqrt(6.0 / (inputs + 8)));
    for (auto* part : {&second_, &second_mean_, &second_square_}) {
      std::vector<float> wider(static_cast<std::size_t>(kHidden + 1) * wide, 0.0f);
      for (int j = 0; stride_ && j <= kHidden; ++j)
        for (int k = 0; k < stride_; ++k) wider[j * wide + k] = (*part)[j * stride_ + k];
      part->swap(wider);
    }
    inputs_ = inputs;
    stride_ = wide;
  }

  void answer(const std::vector<double>& z, const Filled& filled, int outputs, bool values, double* p) {
    forward(z, filled);
    for (int k = 0; k < outputs; ++k) p[k] = static_cast<double>(output_[k]);
    if (!values) softmax(p, outputs);
  }

  void begin() {
    first_gradient_.assign(first_.size(), 0.0f);
    second_gradient_.assign(second_.size(), 0.0f);
    rows_ = 0;
  }

  // Add an event's gradient; of classes `label` is one, of values the standardized value.
  void add(const std::vector<double>& z, const Filled& filled, double label, int outputs, bool values) {
    forward(z, filled);
    scores_.assign(outputs, 0.0);
    for (int k = 0; k < outputs; ++k) scores_[k] = static_cast<double>(output_[k]);
    if (values) {
      scores_[0] -= label;
      scores_[0] = scores_[0] > 3.0 ? 3.0 : scores_[0] < -3.0 ? -3.0 : scores_[0];  // Huber's loss
    } else {
      softmax(scores_.data(), outputs);
      scores_[static_cast<int>(label)] -= 1.0;
    }
    error_.assign(stride_, 0.0f);
    for (int k = 0; k < outputs; ++k) error_[k] = static_cast<float>(scores_[k]);
    float hidden_error[kHidden];
    for (int j = 0; j <= kHidden; ++j) {
      const float h = j < kHidden ? hidden_[j] : 1.0f;
      const float* weights = second_.data() + j * stride_;
      float* gradient = second_gradient_.data() + j * stride_;
      for (int k = 0; k < stride_; ++k) gradient[k] += h * error_[k];
      if (j == kHidden) break;
      float sum = 0.0f;
      if (h > 0.0f)
        for (int k = 0; k < outputs; ++k) sum += weights[k] * error_[k];
      hidden_error[j] = sum;
    }
    for (const std::int32_t i : filled) {
      if (i >= inputs_) continue;
      const auto input = static_cast<float>(z[i]);
      float* gradient = first_gradient_.data() + static_cast<std::size_t>(i) * kHidden;
      for (int j = 0; j < kHidden; ++j) gradient[j] += input * hidden_error[j];
    }
    ++rows_;
  }

  void step() {
    ++steps_;
    first_power_ *= kBeta1;
    second_power_ *= kBeta2;
    const auto share = static_cast<float>(1.0 / rows_);
    const auto rate = static_cast<float>(kRate * std::sqrt(1.0 - second_power_) / (1.0 - first_power_));
    adam(first_, first_mean_, first_square_, first_gradient_, share, rate);
    adam(second_, second_mean_, second_square_, second_gradient_, share, rate);
  }

  template <class Visitor>
  void state(Visitor& visit, int inputs, int outputs) {
    visit("first", first_);
    visit("first_mean", first_mean_);
    visit("first_square", first_square_);
    visit("second", second_);
    visit("second_mean", second_mean_);
    visit("second_square", second_square_);
    visit.scalar("steps", steps_);
    visit.scalar("first_power", first_power_);
    visit.scalar("second_power", second_power_);
    visit.scalar("random", random_.counter);
    if constexpr (Visitor::restores) {
      inputs_ = std::min(inputs, kMost);
      stride_ = (outputs + 7) / 8 * 8;
      for (const auto* part : {&first_, &first_mean_, &first_square_})
        require(part->size() == static_cast<std::size_t>(inputs_) * kHidden, "the network's first layer is of another shape");
      for (const auto* part : {&second_, &second_mean_, &second_square_})
        require(part->size() == static_cast<std::size_t>(kHidden + 1) * stride_, "the network's second layer is of another shape");
      for (const auto* part : {&first_, &first_mean_, &first_square_, &second_, &second_mean_, &second_square_})
        require_finite(*part, "a weight of the network is NaN");
      for (const auto* part : {&first_square_, &second_square_})
        for (const float square : *part) require(square >= 0.0f, "a mean of squares is negative");
      for (const double power : {first_power_, second_power_}) require(power >= 0.0 && power <= 1.0, "the network's step is none");
    }
  }

 private:
  static constexpr double kRate = 3e-3, kBeta1 = 0.9, kBeta2 = 0.999;
  int inputs_ = 0, stride_ = 0, rows_ = 0;
  std::uint64_t steps_ = 0;
  double first_power_ = 1.0, second_power_ = 1.0;  // the betas to the power of the steps
  Random random_;
  std::vector<float> first_, first_mean_, first_square_;     // (inputs, kHidden)
  std::vector<float> second_, second_mean_, second_square_;  // (kHidden + 1, stride); the last row is the bias
  std::vector<float> first_gradient_, second_gradient_, output_, error_;
  std::vector<double> scores_;
  alignas(64) float hidden_[kHidden];

  void forward(const std::vector<double>& z, const Filled& filled) {
    float sums[kHidden] = {};
    for (const std::int32_t i : filled) {
      if (i >= inputs_) continue;
      const auto input = static_cast<float>(z[i]);
      const float* row = first_.data() + static_cast<std::size_t>(i) * kHidden;
      for (int j = 0; j < kHidden; ++j) sums[j] += input * row[j];
    }
    for (int j = 0; j < kHidden; ++j) hidden_[j] = sums[j] > 0.0f ? sums[j] : 0.0f;
    output_.assign(second_.begin() + kHidden * stride_, second_.end());
    for (int j = 0; j < kHidden; ++j) {
      const float h = hidden_[j];
      if (h == 0.0f) continue;
      const float* row = second_.data() + j * stride_;
      for (int k = 0; k < stride_; ++k) output_[k] += h * row[k];
    }
  }

  static void adam(std::vector<float>& weights, std::vector<float>& mean, std::vector<float>& square, const std::vector<float>& gradient,
                   float share, float rate) {
    constexpr auto b1 = static_cast<float>(kBeta1), b2 = static_cast<float>(kBeta2);
    const std::size_t n = weights.size();
    float* w = weights.data();
    float* m = mean.data();
    float* s = square.data();
    const float* gs = gradient.data();
    for (std::size_t i = 0; i < n; ++i) {
      const float g = gs[i] * share;
      m[i] = b1 * m[i] + (1.0f - b1) * g;
      s[i] = b2 * s[i] + (1.0f - b2) * g * g;
      w[i] -= rate * m[i] / (std::sqrt(s[i]) + 1e-8f);
    }
  }
};

}  // namespace online
