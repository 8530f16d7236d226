// The learner of tables: members that share one ring of raw events and one scaler, and a mixer. It answers each event first and learns after.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "elementary.h"
#include "forest.h"
#include "inputs.h"
#include "linear.h"
#include "markov.h"
#include "mixer.h"
#include "mlp.h"
#include "nearest.h"
#include "ring.h"
#include "state.h"

namespace online {

struct Settings {
  bool values = false;  // labels are numbers
  bool forests = true;
  bool markov = true;   // members that look at the last labels alone
  double work = 0.0;    // units an event spends on trees; 0: by the number of columns and classes
  std::uint64_t seed = 0;
};

constexpr int kExample = 0, kQuestion = 1, kLateLabel = 2, kPassedOver = 3;

class Learner {
 public:
  explicit Learner(const Settings& settings) : settings_(settings), mlp_(settings.seed * 64 + 1) {
    static constexpr ForestSettings kForests[] = {
        {24, 5000, 1, 1.0, 0.0}, {16, 5000, 6, 0.5, 0.6}, {16, 1000, 2, 0.5, 0.0}, {12, 250, 2, 0.4, 0.0}};
    if (settings.forests)
      for (int f = 0; f < 4; ++f) forests_.emplace_back(kForests[f], settings.seed * 64 + 2 + f);
    members_ = kExperts + static_cast<int>(forests_.size()) + kLinear + 1 + (settings.markov ? 2 : 0);
    mixer_.begin(members_);
    value_mixer_.begin(members_);
    if (settings_.values) classes_ = 1;
  }

  int columns() const { return inputs_.columns(); }
  int classes() const { return classes_; }
  int members() const { return members_; }
  std::uint64_t learnt() const { return ring_.count; }

  void add_column(bool of_words) {
    inputs_.add_column(of_words);
    ring_.add_column();
    nearest_.add_column(ring_, inputs_);
    bins_.add_column(ring_, inputs_);
    for (Forest& forest : forests_) forest.grow(columns(), classes_, settings_.values);
  }

  void grow_classes(int classes) {
    if (settings_.values || classes <= classes_) return;
    classes_ = classes;
    for (Forest& forest : forests_) forest.grow(columns(), classes_, false);
    for (Markov& markov : markov_) markov.grow(classes_);
  }

  // `count` events in their order. x (count, columns); of a label late by slot the kept features and answers are read, of a question they
  // are written. Scores (count, stride); kept answers (members + 1, stride) each, the last row of them the mixer's.
  void learn(int count, const double* x, const std::uint8_t* kinds, const std::int32_t* slots, const double* labels, double* scores, int stride,
             double* kept_x, double* kept_p) {
    const std::size_t d = columns();
    for (int i = 0; i < count; ++i) {
      double* row = scores + static_cast<std::size_t>(i) * stride;
      const double* event = x + i * d;
      if (kinds[i] == kExample || kinds[i] == kQuestion) {
        inputs_.see(event);
        answer(event);
        std::copy_n(answer_.data(), classes_, row);
        if (kinds[i] == kQuestion) {
          if (slots[i] < 0) continue;
          std::copy_n(event, d, kept_x + slots[i] * d);
          double* kept = kept_p + static_cast<std::size_t>(slots[i]) * (members_ + 1) * stride;
          std::fill_n(kept, static_cast<std::size_t>(members_ + 1) * stride, 0.0);
          for (int m = 0; m <= members_; ++m)
            std::copy_n(m < members_ ? p_.data() + m * classes_ : answer_.data(), classes_, kept + static_cast<std::size_t>(m) * stride);
        } else {
          take_in(event, labels[i]);
        }
      } else if (kinds[i] == kLateLabel) {
        event = kept_x + slots[i] * d;
        const double* kept = kept_p + static_cast<std::size_t>(slots[i]) * (members_ + 1) * stride;
        std::copy_n(kept + static_cast<std::size_t>(members_) * stride, classes_, row);
        inputs_.row(event, z_, filled_);
        p_.resize(static_cast<std::size_t>(members_) * classes_);
        for (int m = 0; m < members_; ++m) std::copy_n(kept + static_cast<std::size_t>(m) * stride, classes_, p_.data() + m * classes_);
        grow_members();
        fresh_ = false;
        take_in(event, labels[i]);
      }
    }
  }

  // Scores (count, classes) of questions. Changes nothing that decides a later answer.
  void predict(int count, const double* x, double* scores) {
    for (int i = 0; i < count; ++i) {
      answer(x + static_cast<std::size_t>(i) * columns());
      std::copy_n(answer_.data(), classes_, scores + static_cast<std::size_t>(i) * classes_);
    }
  }

  // What the members say of one event (members, classes), and its nearest ones: how many events back each was, and its distance.
  int explain(const double* x, double* p, std::int32_t* backs, double* distances) {
    answer(x);
    std::copy(p_.begin(), p_.end(), p);
    if (!ring_.count) return 0;
    for (int i = 0; i < nearest_.found_count(1); ++i) {
      backs[i] = nearest_.found(1)[i].back;
      distances[i] = std::sqrt(static_cast<double>(nearest_.found(1)[i].distance));
    }
    return nearest_.found_count(1);
  }

  // Features (columns,) and label of the event that was learnt `back` events ago.
  double past(int back, double* x) const {
    const int slot = ring_.slot(back);
    std::copy_n(ring_.row(slot), columns(), x);
    return ring_.y[slot];
  }

  // How much of the forests' gain is each column's (columns,), summing to 1; 0 where there is none.
  void importance(double* sums) const {
    std::fill_n(sums, columns(), 0.0);
    for (const Forest& forest : forests_) forest.importance(sums);
    double total = 0.0;
    for (int c = 0; c < columns(); ++c) total += sums[c];
    for (int c = 0; total > 0.0 && c < columns(); ++c) sums[c] /= total;
  }

  void shares(double* shares) const { settings_.values ? value_mixer_.shares(shares) : mixer_.shares(shares); }

  template <class Visitor>
  void state(Visitor& visit) {
    visit.prefix = "inputs.";
    inputs_.state(visit);
    visit.prefix = "";
    visit.scalar("classes", classes_);
    visit.prefix = "ring.";
    ring_.state(visit, inputs_.words);
    if constexpr (Visitor::restores) {
      require(classes_ >= (settings_.values ? 1 : 0) && classes_ < 65536 && inputs_.width >= 1, "the number of classes is none");
      for (const double y : ring_.y)
        require(settings_.values ? y - y == 0.0 : y >= 0.0 && y < classes_ && y == static_cast<int>(y), "a past label is no class");
    }
    visit.prefix = "nearest.";
    nearest_.state(visit, ring_, inputs_);
    visit.prefix = "bins.";
    bins_.state(visit, ring_, inputs_);
    for (std::size_t f = 0; f < forests_.size(); ++f) {
      visit.prefix = "forest" + std::to_string(f) + ".";
      forests_[f].state(visit, columns(), classes_, settings_.values, ring_);
    }
    visit.prefix = "";
    visit.scalar("grown_inputs", grown_inputs_);
    visit.scalar("grown_classes", grown_classes_);
    if constexpr (Visitor::restores)
      require(grown_inputs_ >= 0 && grown_inputs_ <= inputs_.width && grown_classes_ >= 0 && grown_classes_ <= classes_, "members have more inputs than there are");
    for (int g = 0; g < kGradients; ++g) {
      visit.prefix = "linear" + std::to_string(g) + ".";
      gradients_[g].state(visit, grown_inputs_, grown_classes_);
    }
    visit.prefix = "squares.";
    least_squares_.state(visit, grown_inputs_, grown_classes_);
    visit.prefix = "mlp.";
    mlp_.state(visit, grown_inputs_, grown_classes_);
    for (int m = 0; m < 2; ++m) {
      visit.prefix = "markov" + std::to_string(m) + ".";
      if (settings_.values) fading_[m].state(visit);
      else markov_[m].state(visit, classes_);
    }
    visit.prefix = "mixer.";
    if (settings_.values) value_mixer_.state(visit);
    else mixer_.state(visit);
    visit.prefix = "target.";
    visit.scalar("count", target_count_);
    visit.scalar("mean", target_mean_);
    visit.scalar("variance", target_variance_);
    if constexpr (Visitor::restores)
      require(target_count_ >= 0.0 && target_mean_ - target_mean_ == 0.0 && target_variance_ >= 0.0 && target_variance_ - target_variance_ == 0.0,
              "the target's mean or variance is NaN");
  }

 private:
  static constexpr int kGradients = 4, kLinear = kGradients + 1;

  Settings settings_;
  int members_ = 0, classes_ = 0;
  Inputs inputs_;
  Ring ring_;
  Nearest nearest_;
  Bins bins_;
  std::vector<Forest> forests_;
  Gradient gradients_[kGradients] = {{0.2, 1.0, true}, {0.05, 0.999, true}, {0.01, 1.0, false}, {0.05, 1.0, false}};
  LeastSquares least_squares_;
  Mlp mlp_;
  Markov markov_[2] = {Markov(0.995), Markov(0.9)};
  Fading fading_[2] = {Fading(0.0), Fading(0.98)};
  Mixer mixer_;
  ValueMixer value_mixer_;
  std::int32_t grown_inputs_ = 0, grown_classes_ = 0;  // for which the linear members and the network have weights
  double target_count_ = 0.0, target_mean_ = 0.0, target_variance_ = 0.0;

  // of the event at work
  std::vector<double> z_, p_, answer_, binned_, target_, error_, units_, other_;
  Filled filled_, other_filled_;
  bool fresh_ = false;  // whether p_ is of the linear members as they are now

  void grow_members() {
    if (grown_inputs_ == inputs_.width && grown_classes_ == classes_) return;
    grown_inputs_ = inputs_.width;
    grown_classes_ = classes_;
    for (Gradient& gradient : gradients_) gradient.grow(grown_inputs_, grown_classes_);
    least_squares_.grow(grown_inputs_, grown_classes_);
    mlp_.grow(grown_inputs_, grown_classes_);
  }

  double deviation() const { return target_variance_ > 1e-12 * (target_mean_ * target_mean_ + target_variance_) ? std::sqrt(target_variance_) : 1.0; }
  double standardized(double value) const { return (value - target_mean_) / deviation(); }

  // Words as bins, for the trees.
  const double* binned(const double* x) {
    binned_.resize(columns());
    for (int c = 0; c < columns(); ++c) binned_[c] = inputs_.words[c] && x[c] == x[c] ? word_bin(x[c]) : x[c];
    return binned_.data();
  }

  // Members' answers into p_ (members, classes), the mixer's into answer_.
  void answer(const double* x) {
    answer_.assign(classes_, 0.0);
    p_.assign(static_cast<std::size_t>(members_) * classes_, 0.0);
    if (!classes_) return;
    const bool values = settings_.values;
    // an event may have brought inputs that the members have not met: they see those they know
    inputs_.row(x, z_, filled_);
    drop_unknown();
    double* p = p_.data();
    nearest_.search(x, ring_, inputs_);
    if (values) nearest_.average(ring_, target_mean_, p);
    else nearest_.vote(ring_, classes_, p);
    p += kExperts * classes_;
    const double* bins = forests_.empty() ? nullptr : binned(x);
    for (Forest& forest : forests_) {
      if (!forest.answer(bins, classes_, values, p)) std::fill_n(p, classes_, values ? target_mean_ : 1.0 / classes_);
      p += classes_;
    }
    const int known = grown_classes_;
    const auto raw = [&](double* q) {
      if (values) q[0] = target_mean_ + deviation() * q[0];
    };
    for (Gradient& gradient : gradients_) {
      if (known) gradient.answer(z_, filled_, known, values, p);
      raw(p);
      p += classes_;
    }
    if (known) least_squares_.answer(z_, filled_, known, values, p);
    raw(p);
    p += classes_;
    if (known) mlp_.answer(z_, filled_, known, values, p);
    raw(p);
    p += classes_;
    for (int m = 0; settings_.markov && m < 2; ++m) {
      if (values) p[0] = fading_[m].value(target_mean_);
      else markov_[m].answer(p);
      p += classes_;
    }
    fresh_ = true;
    if (values) {
      answer_[0] = target_mean_ + deviation() * value_mixer_.answer(in_units());
    } else {
      mixer_.answer(p_.data(), classes_, answer_.data());
    }
  }

  void drop_unknown() {
    std::size_t kept = 0;
    for (const std::int32_t place : filled_)
      if (place < grown_inputs_) filled_[kept++] = place;
    filled_.resize(kept);
  }

  const double* in_units() {
    units_.resize(members_);
    for (int m = 0; m < members_; ++m) units_[m] = standardized(p_[m]);
    return units_.data();
  }

  // Learn from a label, with the members' answers in p_.
  void take_in(const double* x, double label) {
    const bool values = settings_.values;
    if (values) {
      value_mixer_.learn(in_units(), standardized(label));
    } else if (label < classes_) {
      mixer_.learn(p_.data(), classes_, static_cast<int>(label));
    } else {  // a new class, of which no member could know
      grow_classes(static_cast<int>(label) + 1);
      fresh_ = false;
    }
    if (values) {
      target_count_ += 1.0;
      const double share = 1.0 / (target_count_ < kScaleWindow ? target_count_ : kScaleWindow);
      const double moved = label - target_mean_;
      target_mean_ += share * moved;
      target_variance_ = (1.0 - share) * (target_variance_ + share * moved * moved);
    }
    const bool grows = grown_inputs_ != inputs_.width || grown_classes_ != classes_;
    grow_members();
    if (grows) {
      inputs_.row(x, z_, filled_);
      fresh_ = false;
    }
    learn_linear(label);
    if (!forests_.empty()) {
      const double* bins = binned(x);
      for (Forest& forest : forests_) forest.count(bins, label, values, fresh_);
    }
    for (int m = 0; settings_.markov && m < 2; ++m) {
      if (values) fading_[m].learn(label);
      else markov_[m].learn(static_cast<int>(label));
    }
    const int slot = ring_.add(x, label);
    nearest_.add(ring_, inputs_);
    if (!forests_.empty()) {
      bins_.add(slot, ring_, inputs_);
      const double units = settings_.work > 0.0 ? settings_.work : work();
      for (Forest& forest : forests_) forest.work(units, ring_, bins_, inputs_, values, target_mean_, deviation());
    }
    learn_mlp(label);
  }

  // Less where there are many classes, since each column of a node then costs more.
  double work() const { return 10000.0 / (1.0 + (classes_ > 2 ? classes_ - 2 : 0) / 28.0); }

  void learn_linear(double label) {
    const bool values = settings_.values;
    target_.assign(classes_, 0.0);
    if (values) target_[0] = standardized(label);
    else target_[static_cast<int>(label)] = 1.0;
    error_.resize(classes_);
    const double* p = p_.data() + static_cast<std::size_t>(kExperts + forests_.size()) * classes_;
    for (Gradient& gradient : gradients_) {
      if (fresh_ && !values) std::copy_n(p, classes_, error_.data());
      else gradient.answer(z_, filled_, classes_, values, error_.data());
      for (int k = 0; k < classes_; ++k) error_[k] -= target_[k];
      if (values) error_[0] = error_[0] > 3.0 ? 3.0 : error_[0] < -3.0 ? -3.0 : error_[0];  // Huber's loss
      gradient.learn(z_, filled_, error_.data(), classes_);
      p += classes_;
    }
    least_squares_.learn(z_, filled_, target_.data(), classes_);
  }

  // After the event has gone to the ring.
  void learn_mlp(double label) {
    const bool values = settings_.values;
    mlp_.begin();
    mlp_.add(z_, filled_, values ? standardized(label) : label, classes_, values);
    const int replayed = ring_.count > 1 ? Mlp::replayed(inputs_.width) : 0;
    for (int i = 0; i < replayed; ++i) {
      const int slot = ring_.slot(static_cast<int>(mlp_.draw(static_cast<std::uint32_t>(ring_.size()))));
      inputs_.row(ring_.row(slot), other_, other_filled_);
      mlp_.add(other_, other_filled_, values ? standardized(ring_.y[slot]) : ring_.y[slot], classes_, values);
    }
    mlp_.step();
  }
};

}  // namespace online
