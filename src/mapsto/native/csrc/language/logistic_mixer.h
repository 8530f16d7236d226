// Logistic mixing: p = σ(Σ w_i stretch(p_i)), each weight moved by (bit − p) stretch(p_i) (Mahoney, 2005; Mattern, "Mixing Strategies in Data
// Compression", 2012). Several sets of weights, each chosen by something else, answer, and a second layer mixes their answers.
#pragma once

#include <cstdint>
#include <vector>

#include "../online/state.h"
#include "contexts.h"
#include "floats.h"

namespace language {

constexpr int kInputs = 16;  // of a node, the last of them 0
constexpr int kSets = 3;

inline float squash(float x) { return sigmoid(x < -11.0f ? -11.0f : x > 11.0f ? 11.0f : x); }

class LogisticMixer {
 public:
  // `without`: an input that is always passed over; -1 for none.
  LogisticMixer(const int (&sizes)[kSets], float start, int without) : without_(without) {
    std::size_t total = 0;
    for (int k = 0; k < kSets; ++k) {
      starts_[k] = total;
      total += static_cast<std::size_t>(sizes[k]);
    }
    weights_.assign(total * kInputs, start);
    if (without >= 0)
      for (std::size_t at = without; at < weights_.size(); at += kInputs) weights_[at] = 0.0f;
    last_.assign(static_cast<std::size_t>(kNodes) * kSets, 1.0f / kSets);
  }

  // The logit of a 1 at a node, whose inputs are x (kInputs,); `chosen` are the sets of weights.
  float answer(int node, const float* x, const int (&chosen)[kSets], float* logits) const {
    float sum = 0.0f;
    for (int k = 0; k < kSets; ++k) {
      const float found = dot(x, weights_.data() + (starts_[k] + chosen[k]) * kInputs, kInputs);
      logits[k] = found < -11.0f ? -11.0f : found > 11.0f ? 11.0f : found;
      sum += last_[static_cast<std::size_t>(node) * kSets + k] * logits[k];
    }
    return sum;
  }

  void learn(int node, const float* x, const int (&chosen)[kSets], int bit, float rate, float last_rate) {
    float logits[kSets];
    const float sum = answer(node, x, chosen, logits);
    const auto target = static_cast<float>(bit);
    const float error = last_rate * (target - squash(sum));
    for (int k = 0; k < kSets; ++k) {
      last_[static_cast<std::size_t>(node) * kSets + k] += error * logits[k];
      const float step = rate * (target - squash(logits[k]));
      float* w = weights_.data() + (starts_[k] + chosen[k]) * kInputs;
      for (int i = 0; i < kInputs; ++i) w[i] += step * x[i];
      if (without_ >= 0) w[without_] = 0.0f;
    }
  }

  // Weight of an input at a node, by all sets together.
  float weight(int node, int input, const int (&chosen)[kSets]) const {
    float sum = 0.0f;
    for (int k = 0; k < kSets; ++k)
      sum += last_[static_cast<std::size_t>(node) * kSets + k] * weights_[(starts_[k] + chosen[k]) * kInputs + input];
    return sum;
  }

  template <class Walk>
  void walk(Walk& walk) {
    walk("weights", weights_);
    walk("last", last_);
  }
  void check(const LogisticMixer& fresh) const {
    online::require(weights_.size() == fresh.weights_.size() && last_.size() == fresh.last_.size(), "a mixer of another size");
    online::require_finite(weights_, "a mixer's weights are not finite");
    online::require_finite(last_, "a mixer's weights are not finite");
  }

 private:
  std::size_t starts_[kSets] = {};
  std::vector<float> weights_, last_;
  int without_;
};

}  // namespace language
