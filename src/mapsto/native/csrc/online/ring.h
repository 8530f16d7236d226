// The last labelled events, raw: one buffer that all members share.
#pragma once

#include <vector>

#include "elementary.h"
#include "state.h"

namespace online {

constexpr int kRing = 5000;  // events
constexpr double kMostWords = 1 << 30;

class Ring {
 public:
  std::vector<double> x;  // (kRing, columns)
  std::vector<double> y;  // classes, or values
  std::uint64_t count = 0;  // events ever

  int columns() const { return columns_; }
  int size() const { return count < kRing ? static_cast<int>(count) : kRing; }
  // The slot of the event that came `back` events ago; 0 is the last one.
  int slot(int back) const { return static_cast<int>((count - 1 - static_cast<std::uint64_t>(back)) % kRing); }
  const double* row(int slot) const { return x.data() + static_cast<std::size_t>(slot) * columns_; }

  void add_column() {
    const int rows = static_cast<int>(y.size());
    std::vector<double> wider(static_cast<std::size_t>(rows) * (columns_ + 1), kNaN);
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns_; ++c) wider[static_cast<std::size_t>(r) * (columns_ + 1) + c] = row(r)[c];
    x.swap(wider);
    ++columns_;
  }

  // The slot that the event went to.
  int add(const double* values, double label) {
    const int at = static_cast<int>(count % kRing);
    if (at == static_cast<int>(y.size())) {
      y.push_back(label);
      x.insert(x.end(), values, values + columns_);
    } else {
      y[at] = label;
      std::copy(values, values + columns_, x.begin() + static_cast<std::ptrdiff_t>(at) * columns_);
    }
    ++count;
    return at;
  }

  template <class Visitor>
  void state(Visitor& visit, const std::vector<std::int32_t>& words) {
    visit("x", x);
    visit("y", y);
    visit.scalar("count", count);
    if constexpr (Visitor::restores) {
      columns_ = static_cast<int>(words.size());
      require(y.size() == static_cast<std::size_t>(size()) && x.size() == y.size() * columns_, "the ring has another number of rows");
      require(count < 1ULL << 62, "there were more events than can be counted");
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double value = x[i];
        const bool fits = words[i % columns_] ? value >= 0.0 && value < kMostWords && value == static_cast<std::int32_t>(value)
                                              : value - value == 0.0;
        require(value != value || fits, "a past event holds infinity, or what is no word");
      }
    }
  }

 private:
  int columns_ = 0;
};

}  // namespace online
