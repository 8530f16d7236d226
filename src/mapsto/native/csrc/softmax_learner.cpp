// Softmax regression by AdaGrad behind a C interface: what is learnt lies in the caller's arrays, and no call fails.
//
// An event one at a time, in a block or as a row gives the same bits: its inputs are summed in rising order, and those that are 0 passed over.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "online/elementary.h"
#include "online/linear.h"

#if defined(_WIN32)
#define MAPSTO_API extern "C" __declspec(dllexport)
#else
#define MAPSTO_API extern "C" __attribute__((visibility("default")))
#endif

namespace {

constexpr double kLargest = 1e100;      // a number beyond it counts as infinite
constexpr double kLeastOfSums = 1e-12;  // of the mean square: a variance below it is rounding

struct Input {
  std::int32_t place;
  double value;
};

thread_local std::vector<Input> filled;
thread_local std::vector<double> error;

// A value scaled by the count of all values so far, the first, and the sums of the values less the first and of their squares.
double scaled(double* sums, double value, bool moves) {
  const double moved = value - sums[1];
  if (moved != moved) return 0.0;
  if (moves) {
    sums[0] += 1.0;
    sums[2] += moved;
    sums[3] += moved * moved;
  }
  const double mean = sums[2] / sums[0], of_squares = sums[3] / sums[0];
  const double variance = of_squares - mean * mean;
  const double std = variance > kLeastOfSums * of_squares ? std::sqrt(variance) : 0.0;
  return std != 0.0 ? (moved - mean) / std : 0.0;
}

}  // namespace

// The learner's arrays, and those of the columns of its events. As `Learnt` in `nn/online/native_softmax.py`.
struct Learnt {
  double* weights;             // (inputs, classes)
  double* squares;             // (inputs, classes)
  double* const* sums;         // by column: of a number's scale; null for words
  const std::int32_t* places;  // by column: a number's input
  double rate;
  std::int32_t classes;
  std::int32_t columns;
};

namespace {

void answer(const Learnt& learnt, int known, double* p) {
  if (known == 0) return;
  std::fill(p, p + known, 0.0);
  for (const Input& input : filled) {
    const double* row = learnt.weights + static_cast<std::size_t>(input.place) * learnt.classes;
    for (int k = 0; k < known; ++k) p[k] += input.value * row[k];
  }
  online::softmax(p, known);
}

void learn(const Learnt& learnt, int known, const double* p, int label) {
  error.assign(p, p + known);
  error[label] -= 1.0;
  for (const Input& input : filled) {
    const std::size_t place = static_cast<std::size_t>(input.place) * learnt.classes;
    online::adagrad(learnt.weights + place, learnt.squares + place, input.value, error.data(), known, learnt.rate, 1.0);
  }
}

void fill(int inputs, const double* row) {
  filled.clear();
  for (int place = 0; place < inputs; ++place)
    if (row[place] != 0.0) filled.push_back({place, row[place]});
}

// Fill an event of a block x (columns, count), in which a word is the input of its category, and NaN is missing.
void fill(const Learnt& learnt, int count, const double* x, int event, bool moves) {
  filled.clear();
  filled.push_back({0, 1.0});
  for (int c = 0; c < learnt.columns; ++c) {
    const double value = x[static_cast<std::size_t>(c) * count + event];
    if (value != value) continue;
    if (learnt.sums[c] == nullptr) {
      filled.push_back({static_cast<std::int32_t>(value), 1.0});
    } else if (const double z = scaled(learnt.sums[c], value, moves); z != 0.0) {
      filled.push_back({learnt.places[c], z});
    }
  }
  std::sort(filled.begin(), filled.end(), [](const Input& one, const Input& other) { return one.place < other.place; });
}

}  // namespace

// Scores p (classes,) of a row (inputs,).
MAPSTO_API void mapsto_softmax_scores(const Learnt* learnt, int inputs, const double* row, double* p) {
  fill(inputs, row);
  answer(*learnt, learnt->classes, p);
}

// Learn that a row, whose scores are p, is of a class.
MAPSTO_API void mapsto_softmax_learn(const Learnt* learnt, int inputs, const double* row, const double* p, int label) {
  fill(inputs, row);
  learn(*learnt, learnt->classes, p, label);
}

// Whether no number counts as infinite.
MAPSTO_API int mapsto_softmax_within(std::size_t size, const double* x) {
  bool within = true;
  for (std::size_t i = 0; i < size; ++i) within &= !(std::abs(x[i]) > kLargest);
  return within;
}

// Answer and learn a block x (columns, count) in order, of which `known` classes were met before. A label is the number of its class, at most
// one more than are known by then; -1 is none. Scores (count, classes) are 0 for classes that were not known. Without labels nothing changes.
// Where a number counts as infinite nothing is done: then 0, otherwise 1.
MAPSTO_API int mapsto_softmax_take(const Learnt* learnt, int count, const double* x, const std::int32_t* labels, int known, double* scores) {
  if (!mapsto_softmax_within(static_cast<std::size_t>(count) * learnt->columns, x)) return 0;
  std::vector<double> again;
  for (int event = 0; event < count; ++event) {
    double* p = scores + static_cast<std::size_t>(event) * learnt->classes;
    fill(*learnt, count, x, event, labels != nullptr);
    answer(*learnt, known, p);
    std::fill(p + known, p + learnt->classes, 0.0);
    if (labels == nullptr || labels[event] < 0) continue;
    if (labels[event] < known) {
      learn(*learnt, known, p, labels[event]);
    } else {
      known = labels[event] + 1;
      again.resize(known);
      answer(*learnt, known, again.data());
      learn(*learnt, known, again.data(), labels[event]);
    }
  }
  return 1;
}
