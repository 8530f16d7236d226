// What label follows which: a table whose counts fade. Of values: the last one, and their faded mean.
#pragma once

#include <vector>

#include "elementary.h"
#include "state.h"

namespace online {

class Markov {
 public:
  explicit Markov(double decay) : decay_(decay) {}

  void grow(int classes) {
    if (classes == classes_) return;
    std::vector<double> larger(static_cast<std::size_t>(classes) * classes, 0.0);
    for (int i = 0; i < classes_; ++i)
      for (int k = 0; k < classes_; ++k) larger[i * classes + k] = counts_[i * classes_ + k];
    counts_.swap(larger);
    classes_ = classes;
  }

  void answer(double* p) const {
    const double* row = last_ < 0 ? nullptr : counts_.data() + static_cast<std::size_t>(last_) * classes_;
    double total = 1.0;
    for (int k = 0; row && k < classes_; ++k) total += row[k];
    for (int k = 0; k < classes_; ++k) p[k] = ((row ? row[k] : 0.0) + 1.0 / classes_) / total;
  }

  void learn(int label) {
    if (last_ >= 0) {
      double* row = counts_.data() + static_cast<std::size_t>(last_) * classes_;
      for (int k = 0; k < classes_; ++k) row[k] *= decay_;
      row[label] += 1.0;
    }
    last_ = label;
  }

  template <class Visitor>
  void state(Visitor& visit, int classes) {
    visit("counts", counts_);
    visit.scalar("last", last_);
    if constexpr (Visitor::restores) {
      classes_ = classes;
      require(counts_.size() == static_cast<std::size_t>(classes) * classes && last_ >= -1 && last_ < std::max(classes, 1),
              "the table of labels is of another shape");
      for (const double count : counts_) require(count >= 0.0 && count - count == 0.0, "a label was met less than never");
    }
  }

 private:
  double decay_;
  std::int32_t last_ = -1;
  int classes_ = 0;
  std::vector<double> counts_;  // (classes, classes): from, to
};

// y ← d y + (1 − d) label, which is the last value for d = 0.
class Fading {
 public:
  explicit Fading(double decay) : decay_(decay) {}
  double value(double fallback) const { return weight_ > 0.0 ? sum_ / weight_ : fallback; }
  void learn(double label) {
    sum_ = decay_ * sum_ + label;
    weight_ = decay_ * weight_ + 1.0;
  }
  template <class Visitor>
  void state(Visitor& visit) {
    visit.scalar("sum", sum_);
    visit.scalar("weight", weight_);
    if constexpr (Visitor::restores) require(sum_ - sum_ == 0.0 && (weight_ == 0.0 || weight_ >= 1.0) && weight_ - weight_ == 0.0, "a mean of labels is NaN");
  }

 private:
  double decay_, sum_ = 0.0, weight_ = 0.0;
};

}  // namespace online
