// Four k-nearest-neighbour experts that share one pass over the last 2,000 events.
//
// Columns lie one after the other, so that distances of many events are worked out at once; each distance is a sum over columns in their
// order. A number's difference is in standard deviations; words that differ add 2, what is missing on either side adds 1.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "inputs.h"
#include "ring.h"

namespace online {

constexpr int kNearRows = 2000;
constexpr int kExperts = 4;
constexpr int kTile = 128;
constexpr float kWordDistance = 2.0f, kMissingDistance = 1.0f;

class Nearest {
 public:
  struct Neighbour {
    float distance;  // squared
    std::int32_t back;
  };

  // What an expert looks at: the k nearest of the last `window` events.
  static constexpr struct {
    int k, window;
  } kSettings[kExperts] = {{5, 2000}, {15, 2000}, {5, 500}, {5, 150}};

  void add_column(const Ring& ring, const Inputs& inputs) {
    z_.insert(z_.end(), kNearRows, 0.0f);
    mean_.push_back(0.0);
    inverse_.push_back(0.0);
    missing_.push_back(0);
    standardize(static_cast<int>(mean_.size()) - 1, ring, inputs);
  }

  // The last event of the ring.
  void add(const Ring& ring, const Inputs& inputs) {
    const std::uint64_t number = ring.count - 1;
    const int at = static_cast<int>(number % kNearRows);
    const double* row = ring.row(ring.slot(0));
    for (int c = 0; c < columns(); ++c) z_[c * kNearRows + at] = coded(c, row[c], inputs);
    // scales drift: look at every column now and then, at each event in the beginning
    if (ring.count <= 64 || ring.count % 64 == 0) {
      for (int c = 0; c < columns(); ++c) {
        if (!inputs.words[c] && drifted(c, inputs)) standardize(c, ring, inputs);
      }
    }
  }

  // The nearest events into `found_`, for each expert by rising distance.
  void search(const double* x, const Ring& ring, const Inputs& inputs) {
    const int rows = static_cast<int>(std::min<std::uint64_t>(ring.count, kNearRows));
    measure(x, rows, inputs);
    const int newest = static_cast<int>((ring.count - 1) % kNearRows);
    take(0, 0, std::min(rows, 150), newest, 3);
    std::copy_n(found_[3], lengths_[3], found_[2]);
    lengths_[2] = lengths_[3];
    take(150, 150, std::min(rows, 500), newest, 2);
    lengths_[1] = 0;
    take(0, 0, rows, newest, 1);
    lengths_[0] = std::min(lengths_[1], kSettings[0].k);
    std::copy_n(found_[1], lengths_[0], found_[0]);
  }

  const Neighbour* found(int expert) const { return found_[expert]; }
  int found_count(int expert) const { return lengths_[expert]; }

  // Class probabilities (kExperts, classes), votes weighed by 1 / distance; uniform before the first event.
  void vote(const Ring& ring, int classes, double* p) const {
    for (int e = 0; e < kExperts; ++e, p += classes) {
      std::fill(p, p + classes, lengths_[e] ? 0.0 : 1.0 / classes);
      double total = 0.0;
      for (int i = 0; i < lengths_[e]; ++i) {
        const double weight = 1.0 / (std::sqrt(static_cast<double>(found_[e][i].distance)) + kNearness);
        p[static_cast<int>(ring.y[ring.slot(found_[e][i].back)])] += weight;
        total += weight;
      }
      if (lengths_[e])
        for (int k = 0; k < classes; ++k) p[k] /= total;
    }
  }

  // Values (kExperts,), the mean of the neighbours' weighed by 1 / distance; `fallback` before the first event.
  void average(const Ring& ring, double fallback, double* p) const {
    for (int e = 0; e < kExperts; ++e) {
      double sum = 0.0, total = 0.0;
      for (int i = 0; i < lengths_[e]; ++i) {
        const double weight = 1.0 / (std::sqrt(static_cast<double>(found_[e][i].distance)) + kNearness);
        sum += weight * ring.y[ring.slot(found_[e][i].back)];
        total += weight;
      }
      p[e] = lengths_[e] ? sum / total : fallback;
    }
  }

  template <class Visitor>
  void state(Visitor& visit, const Ring& ring, const Inputs& inputs) {
    visit("near_means", mean_);
    visit("near_inverses", inverse_);
    if constexpr (Visitor::restores) {  // the rows themselves follow from the ring and their scales
      const auto n = static_cast<std::size_t>(inputs.columns());
      require(mean_.size() == n && inverse_.size() == n, "the neighbours have scales of another number of columns");
      require_finite(mean_, "a scale of the neighbours is NaN");
      require_finite(inverse_, "a scale of the neighbours is NaN");
      z_.assign(n * kNearRows, 0.0f);
      missing_.assign(n, 0);
      for (int c = 0; c < inputs.columns(); ++c) fill(c, ring, inputs);
    }
  }

 private:
  static constexpr double kNearness = 0.05;  // standard deviations below which an event is as near as another
  std::vector<float> z_;                     // (columns, kNearRows)
  std::vector<double> mean_, inverse_;       // by which z_ was made
  std::vector<std::uint8_t> missing_;        // whether a column of z_ may hold NaN
  alignas(64) float distance_[kNearRows];
  Neighbour found_[kExperts][16];
  int lengths_[kExperts] = {0, 0, 0, 0};

  int columns() const { return static_cast<int>(mean_.size()); }

  float coded(int c, double value, const Inputs& inputs) {
    if (value != value) {
      missing_[c] = 1;
      return std::numeric_limits<float>::quiet_NaN();
    }
    if (inputs.words[c]) return static_cast<float>(value);
    const double z = (value - mean_[c]) * inverse_[c];
    return static_cast<float>(z < -kFarthest ? -kFarthest : z > kFarthest ? kFarthest : z);
  }

  bool drifted(int c, const Inputs& inputs) const {
    const double now = inputs.inverse(c), then = inverse_[c];
    if (now == 0.0 || then == 0.0) return now != then;
    const double moved = (inputs.mean[c] - mean_[c]) * then, ratio = now / then;
    return moved > 0.1 || moved < -0.1 || ratio > 1.1 || ratio < 0.9;
  }

  void standardize(int c, const Ring& ring, const Inputs& inputs) {
    mean_[c] = inputs.mean[c];
    inverse_[c] = inputs.inverse(c);
    fill(c, ring, inputs);
  }

  void fill(int c, const Ring& ring, const Inputs& inputs) {
    missing_[c] = 0;
    const int rows = static_cast<int>(std::min<std::uint64_t>(ring.count, kNearRows));
    for (int back = 0; back < rows; ++back) {
      const auto at = static_cast<int>((ring.count - 1 - static_cast<std::uint64_t>(back)) % kNearRows);
      z_[c * kNearRows + at] = coded(c, ring.row(ring.slot(back))[c], inputs);
    }
  }

  void measure(const double* x, int rows, const Inputs& inputs) {
    query_.resize(columns());
    for (int c = 0; c < columns(); ++c) {
      const std::uint8_t before = missing_[c];
      query_[c] = coded(c, x[c], inputs);
      missing_[c] = before;
    }
    for (int first = 0; first < rows; first += kTile) {
      float sums[kTile] = {};
      // rows beyond the last are worked out too, and never looked at
      const int count = std::min(kTile, kNearRows - first);
      for (int c = 0; c < columns(); ++c) {
        const float q = query_[c];
        if (q != q) continue;  // adds as much to all
        const float* column = z_.data() + c * kNearRows + first;
        if (inputs.words[c]) {
          for (int r = 0; r < count; ++r)
            sums[r] += column[r] == q ? 0.0f : column[r] == column[r] ? kWordDistance : kMissingDistance;
        } else if (missing_[c]) {
          for (int r = 0; r < count; ++r) {
            const float d = column[r] - q;
            sums[r] += d == d ? d * d : kMissingDistance;
          }
        } else if (count == kTile) {
          for (int r = 0; r < kTile; ++r) {
            const float d = column[r] - q;
            sums[r] += d * d;
          }
        } else {
          for (int r = 0; r < count; ++r) {
            const float d = column[r] - q;
            sums[r] += d * d;
          }
        }
      }
      std::copy_n(sums, count, distance_ + first);
    }
  }

  // Into an expert's list the nearest of the events `first` to `last` back, from new to old: of two as near the newer one.
  void take(int first, int begin, int last, int newest, int expert) {
    if (first == 0 && begin == 0) lengths_[expert] = 0;
    Neighbour* list = found_[expert];
    const int k = kSettings[expert].k;
    int& length = lengths_[expert];
    for (int back = begin; back < last;) {
      // the ring is walked in at most two runs
      const int at = newest - back >= 0 ? newest - back : newest - back + kNearRows;
      const int run = std::min(last - back, at + 1);
      for (int i = 0; i < run; ++i) {
        const float distance = distance_[at - i];
        if (length == k && !(distance < list[k - 1].distance)) continue;
        int place = length < k ? length++ : k - 1;
        while (place > 0 && distance < list[place - 1].distance) {
          list[place] = list[place - 1];
          --place;
        }
        list[place] = {distance, back + i};
      }
      back += run;
    }
  }

  std::vector<float> query_;
};

}  // namespace online
