// How members' answers become one: four log-linear mixtures that learn their weights, two pools that follow the members that are right, and
// an answer that weighs those six by how often each was right lately.
//
// A log-linear mixture is p ∝ exp Σ w_m log p_m, w learnt by gradient descent on its log loss (Mattern, "Linear and Geometric Mixtures",
// 2013); a pool weighs by exponential weights of discounted counts (Herbster and Warmuth, "Tracking the Best Expert", 1998, is its kin).
#pragma once

#include <vector>

#include "elementary.h"
#include "state.h"

namespace online {

class Mixer {
 public:
  static constexpr int kGeometric = 4, kPools = 2, kAll = kGeometric + kPools;
  static constexpr double kUniform = 0.02;  // share of the uniform distribution in each member, so that no logarithm is large

  void begin(int members) {
    members_ = members;
    weights_.assign(static_cast<std::size_t>(kGeometric) * members, 1.0 / members);
    right_.assign(static_cast<std::size_t>(kPools) * members, 0.0);
    good_.assign(kAll, 0.0);
  }

  // From `p` (members, classes) the answer (classes,).
  void answer(const double* p, int classes, double* answer) {
    mix(p, classes);
    double weights[kAll];
    share(good_.data(), kAll, kLastRate, weights);
    for (int k = 0; k < classes; ++k) answer[k] = 0.0;
    for (int e = 0; e < kAll; ++e)
      for (int k = 0; k < classes; ++k) answer[k] += weights[e] * mixed_[e * classes + k];
  }

  // Learn from a label and what the members said of it.
  void learn(const double* p, int classes, int label) {
    mix(p, classes);
    ++events_;
    const double t = static_cast<double>(events_);
    const double fading = 1.0 / std::sqrt(1.0 + t / 100.0);
    const double rates[kGeometric] = {0.1, 0.3, 0.3 * fading, fading};
    for (int e = 0; e < kGeometric; ++e) {
      const double* q = mixed_.data() + e * classes;
      double* w = weights_.data() + e * members_;
      const double rate = rates[e] / members_;
      for (int m = 0; m < members_; ++m) {
        const double* logs = logs_.data() + m * classes;
        double mean = 0.0;
        for (int k = 0; k < classes; ++k) mean += q[k] * logs[k];
        w[m] -= rate * (mean - logs[label]);
      }
    }
    for (int e = 0; e < kPools; ++e) {
      double* right = right_.data() + e * members_;
      for (int m = 0; m < members_; ++m) right[m] = kMemory[e] * right[m] + (largest(p + m * classes, classes) == label ? 1.0 : 0.0);
    }
    for (int e = 0; e < kAll; ++e) good_[e] = kLastMemory * good_[e] + (largest(mixed_.data() + e * classes, classes) == label ? 1.0 : 0.0);
  }

  // Shares (members,) of the answer, each mixture's by the size of its weights.
  void shares(double* shares) const {
    double weights[kAll];
    share(good_.data(), kAll, kLastRate, weights);
    std::vector<double> pool(members_);
    for (int m = 0; m < members_; ++m) shares[m] = 0.0;
    for (int e = 0; e < kGeometric; ++e) {
      const double* w = weights_.data() + e * members_;
      double total = 1e-300;
      for (int m = 0; m < members_; ++m) total += w[m] > 0.0 ? w[m] : 0.0;
      for (int m = 0; m < members_; ++m) shares[m] += weights[e] * (w[m] > 0.0 ? w[m] : 0.0) / total;
    }
    for (int e = 0; e < kPools; ++e) {
      share(right_.data() + e * members_, members_, kRate[e], pool.data());
      for (int m = 0; m < members_; ++m) shares[m] += weights[kGeometric + e] * pool[m];
    }
  }

  template <class Visitor>
  void state(Visitor& visit) {
    visit("weights", weights_);
    visit("right", right_);
    visit("good", good_);
    visit.scalar("events", events_);
    if constexpr (Visitor::restores) {
      require(weights_.size() == static_cast<std::size_t>(kGeometric) * members_ && right_.size() == static_cast<std::size_t>(kPools) * members_ &&
                  good_.size() == kAll,
              "the mixtures are of another number of members");
      for (const auto* part : {&weights_, &right_, &good_}) require_finite(*part, "a mixture weighs by NaN");
    }
  }

 private:
  static constexpr double kRate[kPools] = {0.3, 1.0}, kMemory[kPools] = {0.998, 0.999};
  static constexpr double kLastRate = 0.3, kLastMemory = 0.998;
  int members_ = 0;
  std::uint64_t events_ = 0;
  std::vector<double> weights_, right_, good_, logs_, mixed_;

  static void share(const double* counts, int n, double rate, double* weights) {
    for (int i = 0; i < n; ++i) weights[i] = rate * counts[i];
    softmax(weights, n);
  }

  void mix(const double* p, int classes) {
    logs_.resize(static_cast<std::size_t>(members_) * classes);
    mixed_.assign(static_cast<std::size_t>(kAll) * classes, 0.0);
    const double floor = kUniform / classes;
    const int n = members_ * classes;
    double* logs = logs_.data();
    for (int i = 0; i < n; ++i) logs[i] = logarithm((1.0 - kUniform) * p[i] + floor);
    for (int e = 0; e < kGeometric; ++e) {
      double* q = mixed_.data() + e * classes;
      for (int m = 0; m < members_; ++m) {
        const double w = weights_[e * members_ + m];
        for (int k = 0; k < classes; ++k) q[k] += w * logs[m * classes + k];
      }
      softmax(q, classes);
    }
    pool_.resize(members_);
    for (int e = 0; e < kPools; ++e) {
      share(right_.data() + e * members_, members_, kRate[e], pool_.data());
      double* q = mixed_.data() + (kGeometric + e) * classes;
      for (int m = 0; m < members_; ++m)
        for (int k = 0; k < classes; ++k) q[k] += pool_[m] * p[m * classes + k];
    }
  }

  std::vector<double> pool_;
};

// The same for values, in standard deviations of the target: two linear mixtures by normalized gradient descent, and two pools that follow
// the members with the least discounted squared error.
class ValueMixer {
 public:
  static constexpr int kLinear = 2, kPools = 2, kAll = kLinear + kPools;

  void begin(int members) {
    members_ = members;
    weights_.assign(static_cast<std::size_t>(kLinear) * members, 1.0 / members);
    losses_.assign(static_cast<std::size_t>(kPools) * members, 0.0);
    total_.assign(kAll, 0.0);
  }

  double answer(const double* u) {
    mix(u);
    double weights[kAll];
    share(total_.data(), kAll, kLastRate, weights);
    double sum = 0.0;
    for (int e = 0; e < kAll; ++e) sum += weights[e] * mixed_[e];
    return sum;
  }

  void learn(const double* u, double target) {
    mix(u);
    double length = 1e-3;
    for (int m = 0; m < members_; ++m) length += u[m] * u[m];
    for (int e = 0; e < kLinear; ++e) {
      double* w = weights_.data() + e * members_;
      const double step = kSteps[e] * cut(mixed_[e] - target) / length;
      for (int m = 0; m < members_; ++m) w[m] -= step * u[m];
    }
    for (int e = 0; e < kPools; ++e)
      for (int m = 0; m < members_; ++m) losses_[e * members_ + m] = kMemory[e] * losses_[e * members_ + m] + square(u[m] - target);
    for (int e = 0; e < kAll; ++e) total_[e] = kLastMemory * total_[e] + square(mixed_[e] - target);
  }

  void shares(double* shares) const {
    double weights[kAll];
    share(total_.data(), kAll, kLastRate, weights);
    std::vector<double> pool(members_);
    for (int m = 0; m < members_; ++m) shares[m] = 0.0;
    for (int e = 0; e < kLinear; ++e) {
      const double* w = weights_.data() + e * members_;
      double total = 1e-300;
      for (int m = 0; m < members_; ++m) total += w[m] > 0.0 ? w[m] : 0.0;
      for (int m = 0; m < members_; ++m) shares[m] += weights[e] * (w[m] > 0.0 ? w[m] : 0.0) / total;
    }
    for (int e = 0; e < kPools; ++e) {
      share(losses_.data() + e * members_, members_, kRate[e], pool.data());
      for (int m = 0; m < members_; ++m) shares[m] += weights[kLinear + e] * pool[m];
    }
  }

  template <class Visitor>
  void state(Visitor& visit) {
    visit("weights", weights_);
    visit("losses", losses_);
    visit("totals", total_);
    if constexpr (Visitor::restores) {
      require(weights_.size() == static_cast<std::size_t>(kLinear) * members_ && losses_.size() == static_cast<std::size_t>(kPools) * members_ &&
                  total_.size() == kAll,
              "the mixtures are of another number of members");
      for (const auto* part : {&weights_, &losses_, &total_}) require_finite(*part, "a mixture weighs by NaN");
    }
  }

 private:
  static constexpr double kSteps[kLinear] = {0.003, 0.03}, kRate[kPools] = {1.0, 4.0}, kMemory[kPools] = {0.998, 0.99};
  static constexpr double kLastRate = 1.0, kLastMemory = 0.998;
  int members_ = 0;
  std::vector<double> weights_, losses_, total_, pool_;
  double mixed_[kAll] = {};

  static double cut(double x) { return x < -5.0 ? -5.0 : x > 5.0 ? 5.0 : x; }
  static double square(double x) { return cut(x) * cut(x); }

  static void share(const double* losses, int n, double rate, double* weights) {
    for (int i = 0; i < n; ++i) weights[i] = -rate * losses[i];
    softmax(weights, n);
  }

  void mix(const double* u) {
    pool_.resize(members_);
    for (int e = 0; e < kLinear; ++e) {
      mixed_[e] = 0.0;
      for (int m = 0; m < members_; ++m) mixed_[e] += weights_[e * members_ + m] * u[m];
    }
    for (int e = 0; e < kPools; ++e) {
      share(losses_.data() + e * members_, members_, kRate[e], pool_.data());
      mixed_[kLinear + e] = 0.0;
      for (int m = 0; m < members_; ++m) mixed_[kLinear + e] += pool_[m] * u[m];
    }
  }
};

}  // namespace online
