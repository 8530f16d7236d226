// Columns of raw values as standardized inputs, whose number grows with what is met.
//
// Input 0 is 1. A number is z = (x - mean) / std, a missing one 0, with an indicator once its column has missed a value. A word is 1 at the
// input of its category; where a column has more than 32 categories, they share 32 inputs.
#pragma once

#include <cmath>
#include <vector>

#include "elementary.h"
#include "state.h"

namespace online {

constexpr int kWordInputs = 32;
constexpr double kScaleWindow = 5000.0;  // events over which means and variances fade
constexpr double kLeastShare = 1e-12;    // of the mean square: a variance below it is rounding
constexpr double kFarthest = 8.0;        // standard deviations

class Inputs {
 public:
  std::vector<std::int32_t> words;  // by column: whether it holds words
  std::vector<double> count, mean, variance;
  std::int32_t width = 1;

  int columns() const { return static_cast<int>(words.size()); }

  void add_column(bool of_words) {
    words.push_back(of_words);
    count.push_back(0.0);
    mean.push_back(0.0);
    variance.push_back(0.0);
    place_.push_back(-1);
    missing_place_.push_back(-1);
    word_places_.insert(word_places_.end(), kWordInputs, -1);
    inverse_.push_back(0.0);
  }

  // Take in the features of an event: scales move, new categories get an input.
  void see(const double* x) {
    for (int c = 0; c < columns(); ++c) {
      const double value = x[c];
      if (value != value) {
        if (!words[c] && count[c] > 0.0 && missing_place_[c] < 0) missing_place_[c] = width++;
      } else if (words[c]) {
        std::int32_t& place = word_places_[c * kWordInputs + slot(value)];
        if (place < 0) place = width++;
      } else {
        if (place_[c] < 0) place_[c] = width++;
        count[c] += 1.0;
        const double share = 1.0 / (count[c] < kScaleWindow ? count[c] : kScaleWindow);
        const double moved = value - mean[c];
        mean[c] += share * moved;
        variance[c] = (1.0 - share) * (variance[c] + share * moved * moved);
        set_inverse(c);
      }
    }
  }

  double scaled(int c, double value) const {
    const double z = (value - mean[c]) * inverse_[c];
    return z < -kFarthest ? -kFarthest : z > kFarthest ? kFarthest : z;
  }

  double inverse(int c) const { return inverse_[c]; }

  // z (width,) of a row, and which of it is not 0, in rising order of columns.
  void row(const double* x, std::vector<double>& z, std::vector<std::int32_t>& filled) const {
    z.assign(width, 0.0);
    filled.clear();
    z[0] = 1.0;
    filled.push_back(0);
    for (int c = 0; c < columns(); ++c) {
      const double value = x[c];
      std::int32_t place;
      double input = 1.0;
      if (value != value) {
        place = missing_place_[c];
      } else if (words[c]) {
        place = word_places_[c * kWordInputs + slot(value)];
      } else {
        place = place_[c];
        input = scaled(c, value);
      }
      if (place >= 0 && input != 0.0) {
        z[place] = input;
        filled.push_back(place);
      }
    }
  }

  template <class Visitor>
  void state(Visitor& visit) {
    visit("words", words);
    visit("counts", count);
    visit("means", mean);
    visit("variances", variance);
    visit("number_inputs", place_);
    visit("missing_inputs", missing_place_);
    visit("word_inputs", word_places_);
    visit.scalar("width", width);
    if constexpr (Visitor::restores) {
      const std::size_t n = words.size();
      require(count.size() == n && mean.size() == n && variance.size() == n && place_.size() == n &&
                  missing_place_.size() == n && word_places_.size() == n * kWordInputs,
              "the columns have another number of means, variances or inputs");
      std::size_t taken = 1;
      for (const auto* places : {&place_, &missing_place_, &word_places_})
        for (const std::int32_t place : *places) taken += place >= 0;
      require(width >= 1 && taken == static_cast<std::size_t>(width), "there are other inputs than the columns have");
      std::vector<std::uint8_t> met(taken, 0);
      for (const auto* places : {&place_, &missing_place_, &word_places_})
        for (const std::int32_t place : *places) {
          require(place >= -1 && place < width && place != 0 && (place < 0 || !met[place]), "an input lies outside of the row, or is another's");
          if (place >= 0) met[place] = 1;
        }
      for (std::size_t c = 0; c < n; ++c) {
        require(count[c] >= 0.0 && mean[c] - mean[c] == 0.0 && variance[c] >= 0.0 && variance[c] - variance[c] == 0.0,
                "a mean or variance is NaN");
      }
      inverse_.assign(n, 0.0);
      for (std::size_t c = 0; c < n; ++c) set_inverse(static_cast<int>(c));
    }
  }

 private:
  std::vector<std::int32_t> place_, missing_place_, word_places_;
  std::vector<double> inverse_;

  static int slot(double code) {
    return code < kWordInputs ? static_cast<int>(code) : static_cast<int>(static_cast<std::int64_t>(code) % kWordInputs);
  }
  void set_inverse(int c) {
    inverse_[c] = variance[c] > kLeastShare * (mean[c] * mean[c] + variance[c]) ? 1.0 / std::sqrt(variance[c]) : 0.0;
  }
};

}  // namespace online
