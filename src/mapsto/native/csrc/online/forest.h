// Rolling random forests: every event pays for a part of one tree, built from a bootstrap of the last events, which then takes the place of
// the oldest. So a forest answers to drift and bounds its memory, and no detector is needed (after Breiman, "Random Forests", 2001).
//
// Numbers are split by order at one of at most 63 quantiles, words by equality; what is missing goes the way that splits better.
#pragma once

#include <algorithm>
#include <vector>

#include "elementary.h"
#include "inputs.h"
#include "ring.h"

namespace online {

constexpr int kBins = 64;
constexpr std::uint8_t kMissing = kBins;  // its bin, behind the others
constexpr int kFew = 24;  // samples that are sorted rather than counted
constexpr int kLeaf = 0, kNumber = 1, kWord = 2;

// Words beyond 64 categories share their bins.
inline int word_bin(double code) {
  if (code < kBins) return static_cast<int>(code);
  return static_cast<int>((static_cast<std::uint64_t>(code) * 0x9e3779b97f4a7c15ULL) >> 58);
}

// The columns of the ring as bins of one byte, and the edges between bins, which are renewed at intervals.
class Bins {
 public:
  const std::uint8_t* column(int c) const { return codes_.data() + static_cast<std::size_t>(c) * kRing; }
  double edge(int c, int bin) const { return edges_[static_cast<std::size_t>(c) * kBins + bin]; }
  bool ready() const { return renewed_ > 0; }

  void add_column(const Ring& ring, const Inputs& inputs) {
    codes_.insert(codes_.end(), kRing, kMissing);
    edges_.insert(edges_.end(), kBins, kNaN);
    edge_count_.push_back(0);
    renew(static_cast<int>(edge_count_.size()) - 1, ring, inputs);
  }

  // The last event of the ring, which went to a slot.
  void add(int slot, const Ring& ring, const Inputs& inputs) {
    const double* row = ring.row(slot);
    const int columns = inputs.columns();
    for (int c = 0; c < columns; ++c) codes_[static_cast<std::size_t>(c) * kRing + slot] = code(c, row[c], inputs);
    if (ring.count >= next_) {
      renewed_ = ring.count;
      next_ = ring.count < kRing ? std::min<std::uint64_t>(2 * ring.count, kRing) : ring.count + kRing / 2;
      pending_ = 0;
    }
    // one column an event, so that no event waits for all; a short ring is done at once
    const int most = ring.count <= 512 ? columns : 1;
    for (int done = 0; done < most && pending_ < columns; ++done, ++pending_) renew(pending_, ring, inputs);
  }

  template <class Visitor>
  void state(Visitor& visit, const Ring& ring, const Inputs& inputs) {
    visit("codes", codes_);
    visit("edges", edges_);
    visit("edge_counts", edge_count_);
    visit.scalar("renewed", renewed_);
    visit.scalar("next_renewal", next_);
    visit.scalar("pending_column", pending_);
    if constexpr (Visitor::restores) {
      const auto n = static_cast<std::size_t>(inputs.columns());
      require(codes_.size() == n * kRing && edges_.size() == n * kBins && edge_count_.size() == n && pending_ >= 0,
              "the bins are of another number of columns");
      for (const std::int32_t count : edge_count_) require(count >= 0 && count < kBins, "a column has too many edges");
      for (const std::uint8_t code : codes_) require(code <= kMissing, "a bin lies beyond the last");
      (void)ring;
    }
  }

 private:
  std::vector<std::uint8_t> codes_;      // (columns, kRing)
  std::vector<double> edges_;            // (columns, kBins): the upper edge of each bin but the last
  std::vector<std::int32_t> edge_count_;
  std::uint64_t renewed_ = 0, next_ = 8;
  std::int32_t pending_ = 1 << 30;
  std::vector<double> sorted_;

  std::uint8_t code(int c, double value, const Inputs& inputs) const {
    if (value != value) return kMissing;
    if (inputs.words[c]) return static_cast<std::uint8_t>(word_bin(value));
    const double* edges = edges_.data() + static_cast<std::size_t>(c) * kBins;
    return static_cast<std::uint8_t>(std::lower_bound(edges, edges + edge_count_[c], value) - edges);
  }

  void renew(int c, const Ring& ring, const Inputs& inputs) {
    const int rows = ring.size();
    if (!inputs.words[c]) {
      sorted_.clear();
      for (int r = 0; r < rows; ++r) {
        const double value = ring.row(r)[c];
        if (value == value) sorted_.push_back(value);
      }
      std::sort(sorted_.begin(), sorted_.end());
      set_edges(c);
    }
    for (int r = 0; r < rows; ++r) codes_[static_cast<std::size_t>(c) * kRing + r] = code(c, ring.row(r)[c], inputs);
  }

  // Midway between neighbouring values: all of them where there are at most 64, else at the quantiles.
  void set_edges(int c) {
    double* edges = edges_.data() + static_cast<std::size_t>(c) * kBins;
    const std::size_t n = sorted_.size();
    std::size_t distinct = n ? 1 : 0;
    for (std::size_t i = 1; i < n && distinct <= kBins; ++i) distinct += sorted_[i] != sorted_[i - 1];
    int count = 0;
    if (distinct <= kBins) {
      for (std::size_t i = 1; i < n; ++i)
        if (sorted_[i] != sorted_[i - 1]) edges[count++] = middle(sorted_[i - 1], sorted_[i]);
    } else {
      for (int q = 1; q < kBins; ++q) {
        std::size_t i = n * q / kBins;
        while (i < n && sorted_[i] == sorted_[i - 1]) ++i;
        if (i == n) break;
        const double edge = middle(sorted_[i - 1], sorted_[i]);
        if (count == 0 || edge > edges[count - 1]) edges[count++] = edge;
      }
    }
    edge_count_[c] = count;
    std::fill(edges + count, edges + kBins, kNaN);
  }

  static double middle(double low, double high) {
    const double between = low + (high - low) * 0.5;
    return between < high ? between : low;
  }
};

struct Node {
  double threshold;     // numbers up to it go left; of words the bin that goes left
  std::int32_t child;   // the left one, whose right one is the next; of a leaf its row of counts
  std::uint16_t column;
  std::uint8_t kind;
  std::uint8_t missing_left;
};
static_assert(sizeof(Node) == 16);

struct Tree {
  std::vector<Node> nodes;
  std::vector<float> counts;       // (leaves, stride): how often each class, or the number of values and their sum in the tree's units
  std::vector<double> importance;  // by column: how much its splits gained
  double center = 0.0, scale = 1.0;  // of values: those units, so that a float holds a sum whatever the size of values

  float in_units(double value) const {
    const double u = (value - center) / scale;
    return static_cast<float>(u < -1e30 ? -1e30 : u > 1e30 ? 1e30 : u);
  }

  // The child that an event goes to; words come as their bins. Without a branch that a processor could foresee wrongly.
  std::int32_t next(const Node& node, const double* x) const {
    const double value = x[node.column];
    const bool left = (value <= node.threshold) & ((node.kind == kNumber) | (value == node.threshold));
    return node.child + !(left | ((value != value) & (node.missing_left != 0)));
  }
};

struct ForestSettings {
  int trees, window, least;  // least: events in a leaf
  double share;              // of an event's work
  double columns;            // of which to choose at a split, as a share of all; 0: their square root
};

class Forest {
 public:
  Forest(const ForestSettings& settings, std::uint64_t seed) : settings_(settings), random_{seed} {}

  int size() const { return static_cast<int>(trees_.size()); }
  const Tree& tree(int t) const { return trees_[t]; }

  // Mean of the trees' class probabilities (classes,), or the mean of their values; false where there is no tree yet.
  bool answer(const double* x, int classes, bool values, double* p) {
    walk(x);
    if (trees_.empty()) return false;
    std::fill(p, p + classes, 0.0);
    for (std::size_t t = 0; t < trees_.size(); ++t) {
      const float* row = trees_[t].counts.data() + static_cast<std::size_t>(leaves_[t]) * stride_;
      if (values) {
        p[0] += trees_[t].center + trees_[t].scale * (static_cast<double>(row[1]) / static_cast<double>(row[0]));
      } else {
        float total = 0.0f;
        for (int k = 0; k < stride_; ++k) total += row[k];
        const double share = 1.0 / static_cast<double>(total);
        for (int k = 0; k < stride_; ++k) p[k] += share * static_cast<double>(row[k]);
      }
    }
    const double part = 1.0 / static_cast<double>(trees_.size());
    for (int k = 0; k < classes; ++k) p[k] *= part;
    return true;
  }

  // Count a label in the leaf that its event falls to in each tree; `answered` where `answer` was asked about it last.
  void count(const double* x, double y, bool values, bool answered) {
    if (!answered) walk(x);
    for (std::size_t t = 0; t < trees_.size(); ++t) {
      float* row = trees_[t].counts.data() + static_cast<std::size_t>(leaves_[t]) * stride_;
      if (values) {
        row[0] += 1.0f;
        row[1] += trees_[t].in_units(y);
      } else {
        row[static_cast<int>(y)] += 1.0f;
      }
    }
  }

  void grow(int columns, int classes, bool values) {
    const int stride = values ? 2 : classes;
    if (stride != stride_) {
      for (Tree& tree : trees_) widen(tree.counts, stride);
      widen(building_.counts, stride);
      stride_ = stride;
    }
    for (Tree& tree : trees_) tree.importance.resize(columns, 0.0);
    building_.importance.resize(columns, 0.0);
  }

  // Spend an event's work on the tree that is being built; of values their mean and deviation are the units of a tree that is begun.
  void work(double units, const Ring& ring, const Bins& bins, const Inputs& inputs, bool values, double center, double scale) {
    if (!bins.ready()) return;
    credit_ += units * settings_.share;
    while (credit_ > 0.0) {
      if (stack_.empty()) begin(ring, values, center, scale);
      split(ring, bins, inputs, values);
      if (stack_.empty()) end();
    }
  }

  // Add to `sums` (columns,) how much of all trees' gain is of each column.
  void importance(double* sums) const {
    for (const Tree& tree : trees_)
      for (std::size_t c = 0; c < tree.importance.size(); ++c) sums[c] += tree.importance[c];
  }

  template <class Visitor>
  void state(Visitor& visit, int columns, int classes, bool values, const Ring& ring) {
    if constexpr (!Visitor::restores) {
      all_nodes_.clear();
      all_counts_.clear();
      all_importance_.clear();
      all_units_.clear();
      node_counts_.clear();
      leaf_counts_.clear();
      for (std::size_t t = 0; t <= trees_.size(); ++t) {
        const Tree& tree = t < trees_.size() ? trees_[t] : building_;
        all_nodes_.insert(all_nodes_.end(), tree.nodes.begin(), tree.nodes.end());
        all_counts_.insert(all_counts_.end(), tree.counts.begin(), tree.counts.end());
        all_importance_.insert(all_importance_.end(), tree.importance.begin(), tree.importance.end());
        all_units_.insert(all_units_.end(), {tree.center, tree.scale});
        node_counts_.push_back(static_cast<std::int32_t>(tree.nodes.size()));
        leaf_counts_.push_back(stride_ ? static_cast<std::int32_t>(tree.counts.size()) / stride_ : 0);
      }
      stacked_.clear();
      for (const Open& open : stack_) stacked_.insert(stacked_.end(), {open.begin, open.end, open.node});
      sampled_.clear();
      for (const Sample& sample : samples_) {
        sampled_.push_back(sample.slot);
        sampled_.push_back(sample.weight);
        sampled_.push_back(sample.label);
      }
    }
    visit("nodes", all_nodes_);
    visit("leaf_counts", all_counts_);
    visit("importance", all_importance_);
    visit("units", all_units_);
    visit("nodes_of_trees", node_counts_);
    visit("leaves_of_trees", leaf_counts_);
    visit("open_nodes", stacked_);
    visit("samples", sampled_);
    visit.scalar("begun", begun_);
    visit.scalar("credit", credit_);
    visit.scalar("next_tree", next_);
    visit.scalar("random", random_.counter);
    if constexpr (Visitor::restores) restore(columns, classes, values, ring);
  }

 private:
  struct Sample {
    std::uint16_t slot, weight, label, unused;
  };
  struct Open {
    std::int32_t begin, end, node;
  };
  struct Best {
    double gain = -1.0, threshold = 0.0;
    std::int64_t over = 0, under = 1;  // of classes: the gain as a fraction
    int column = -1, bin = 0, kind = kNumber;
    bool missing_left = false;
  };

  ForestSettings settings_;
  Random random_;
  int stride_ = 0;
  std::vector<Tree> trees_;
  Tree building_;
  std::vector<Sample> samples_;  // of the tree that is being built; a node has a run of them
  std::vector<Open> stack_;      // nodes that are yet to be split
  std::uint64_t begun_ = 0;      // how many events there had been when it was begun
  double credit_ = 0.0;
  std::int32_t next_ = 0;
  double center_ = 0.0;  // of the values of the node that is being split

  // scratch
  std::vector<std::int32_t> leaves_, totals_, left_, chosen_;
  std::vector<std::int32_t> histogram_;    // (bins, classes), empty between two columns
  std::uint64_t pairs_[kBins + 1] = {};    // the same for two classes
  std::vector<std::int32_t> few_;          // (classes,), empty between two columns
  std::vector<std::uint16_t> drawn_;
  // copies for the state
  std::vector<Node> all_nodes_;
  std::vector<float> all_counts_;
  std::vector<double> all_importance_, all_units_;
  std::vector<std::int32_t> node_counts_, leaf_counts_, stacked_;
  std::vector<std::uint16_t> sampled_;

  // The row of counts of the leaf that an event falls to, in each tree. Trees are walked side by side: each waits for memory most of the time.
  void walk(const double* x) {
    constexpr std::size_t kSide = 8;
    leaves_.resize(trees_.size());
    for (std::size_t first = 0; first < trees_.size(); first += kSide) {
      const std::size_t count = std::min(kSide, trees_.size() - first);
      const Node* at[kSide];
      std::size_t walking[kSide], left = count;
      for (std::size_t i = 0; i < count; ++i) {
        at[i] = trees_[first + i].nodes.data();
        walking[i] = i;
      }
      while (left) {
        std::size_t still = 0;
        for (std::size_t w = 0; w < left; ++w) {
          const std::size_t i = walking[w];
          const Tree& tree = trees_[first + i];
          if (at[i]->kind == kLeaf) continue;
          at[i] = tree.nodes.data() + tree.next(*at[i], x);
          walking[still++] = i;
        }
        left = still;
      }
      for (std::size_t i = 0; i < count; ++i) leaves_[first + i] = at[i]->child;
    }
  }

  void widen(std::vector<float>& counts, int stride) const {
    if (counts.empty() || !stride_) return;
    const std::size_t rows = counts.size() / stride_;
    std::vector<float> wider(rows * stride, 0.0f);
    for (std::size_t r = 0; r < rows; ++r)
      for (int k = 0; k < stride_; ++k) wider[r * stride + k] = counts[r * stride_ + k];
    counts.swap(wider);
  }

  void begin(const Ring& ring, bool values, double center, double scale) {
    const int n = std::min(ring.size(), settings_.window);
    drawn_.assign(n, 0);
    for (int i = 0; i < n; ++i) ++drawn_[random_.below(static_cast<std::uint32_t>(n))];
    samples_.clear();
    for (int back = 0; back < n; ++back)
      if (drawn_[back]) {
        const int slot = ring.slot(back);
        samples_.push_back({static_cast<std::uint16_t>(slot), drawn_[back], static_cast<std::uint16_t>(values ? 0 : ring.y[slot]), 0});
      }
    building_.nodes.assign(1, Node{});
    building_.counts.clear();
    building_.center = center;
    building_.scale = scale;
    begun_ = ring.count;
    std::fill(building_.importance.begin(), building_.importance.end(), 0.0);
    stack_.assign(1, {0, static_cast<std::int32_t>(samples_.size()), 0});
    credit_ -= 2.0 * n;
  }

  void end() {
    if (static_cast<int>(trees_.size()) < settings_.trees) {
      trees_.push_back(building_);
    } else {
      std::swap(trees_[next_], building_);
    }
    next_ = (next_ + 1) % settings_.trees;
  }

  int tried_columns(int columns) const {
    const double wanted = settings_.columns > 0.0 ? settings_.columns * columns : std::sqrt(static_cast<double>(columns));
    return std::max(1, std::min(columns, static_cast<int>(wanted + 0.5)));
  }

  // Of classes: where a later event has gone to a sample's slot, the sample has that one's label too, as it has its features.
  void relabel(const Open& open, const Ring& ring) {
    const std::uint64_t later = ring.count - begun_;
    if (ring.count <= kRing || later + settings_.window <= kRing) return;  // all are remembered yet
    const auto first = static_cast<int>(begun_ % kRing);
    for (std::int32_t i = open.begin; i < open.end; ++i) {
      Sample& sample = samples_[i];
      const int after = sample.slot >= first ? sample.slot - first : sample.slot - first + kRing;
      if (static_cast<std::uint64_t>(after) < later) sample.label = static_cast<std::uint16_t>(ring.y[sample.slot]);
    }
  }

  void split(const Ring& ring, const Bins& bins, const Inputs& inputs, bool values) {
    const Open open = stack_.back();
    stack_.pop_back();
    if (!values) relabel(open, ring);
    const Sample* samples = samples_.data() + open.begin;
    const int m = open.end - open.begin, columns = inputs.columns(), most = tried_columns(columns);
    std::int64_t weight = 0, squares = 0;
    double sum = 0.0, low = 0.0, high = 0.0;
    if (values) {
      low = high = ring.y[samples[0].slot];
      for (int i = 0; i < m; ++i) {
        const double y = ring.y[samples[i].slot];
        weight += samples[i].weight;
        sum += samples[i].weight * y;
        low = y < low ? y : low;
        high = y > high ? y : high;
      }
      center_ = sum / static_cast<double>(weight);
    } else {
      totals_.assign(wide(), 0);
      for (int i = 0; i < m; ++i) totals_[samples[i].label] += samples[i].weight;
      for (int k = 0; k < stride_; ++k) {
        weight += totals_[k];
        squares += static_cast<std::int64_t>(totals_[k]) * totals_[k];
      }
    }
    const bool pure = values ? low == high : squares == weight * weight;
    Best best;
    if (!pure && m > 1 && weight >= 2 * settings_.least) {
      chosen_.resize(columns);
      for (int c = 0; c < columns; ++c) chosen_[c] = c;
      for (int tried = 0; tried < columns && (tried < most || best.column < 0); ++tried) {
        std::swap(chosen_[tried], chosen_[tried + random_.below(static_cast<std::uint32_t>(columns - tried))]);
        const int c = chosen_[tried];
        credit_ -= m;
        if (values) try_values(c, samples, m, weight, ring, bins, inputs, best);
        else try_classes(c, samples, m, weight, squares, bins, inputs, best);
      }
      credit_ -= 2.0 * (m + 8);
    } else {
      credit_ -= m + 8;
    }
    Node& node = building_.nodes[open.node];
    if (best.column < 0) {
      node.kind = kLeaf;
      node.child = static_cast<std::int32_t>(building_.counts.size() / stride_);
      if (values) {
        building_.counts.push_back(static_cast<float>(weight));
        building_.counts.push_back(building_.in_units(center_) * static_cast<float>(weight));
      } else {
        for (int k = 0; k < stride_; ++k) building_.counts.push_back(static_cast<float>(totals_[k]));
      }
      return;
    }
    building_.importance[best.column] +=
        values ? best.gain : ratio(best.over, best.under) - ratio(squares, weight);
    const auto child = static_cast<std::int32_t>(building_.nodes.size());
    node = {best.threshold, child, static_cast<std::uint16_t>(best.column), static_cast<std::uint8_t>(best.kind), best.missing_left};
    building_.nodes.push_back(Node{});
    building_.nodes.push_back(Node{});
    const std::int32_t middle = partition(open.begin, open.end, best, bins);
    stack_.push_back({middle, open.end, child + 1});
    stack_.push_back({open.begin, middle, child});
  }

  std::int32_t partition(std::int32_t begin, std::int32_t end, const Best& best, const Bins& bins) {
    const std::uint8_t* codes = bins.column(best.column);
    std::int32_t middle = begin;
    for (std::int32_t i = begin; i < end; ++i) {
      const Sample sample = samples_[i];
      const std::uint8_t code = codes[sample.slot];
      const bool left = code == kMissing ? best.missing_left : best.kind == kWord ? code == best.bin : code <= best.bin;
      samples_[i] = samples_[middle];
      samples_[middle] = sample;
      middle += left;
    }
    return middle;
  }

  int wide() const { return (stride_ + 7) / 8 * 8; }

  static void keep(Best& best, double gain, int column, int bin, int kind, double threshold, bool missing_left) {
    if (gain > best.gain) best = {gain, threshold, 0, 1, column, bin, kind, missing_left};
  }

  // The best split of a column by Gini's index: the largest of sum L_k² / L + sum R_k² / R. Counts are whole numbers, so that sums are exact in
  // any order, and two splits are compared without a division: (n / d > n' / d') as n d' > n' d.
  void try_classes(int c, const Sample* samples, int m, std::int64_t weight, std::int64_t squares, const Bins& bins, const Inputs& inputs,
                   Best& best) {
    const std::uint8_t* codes = bins.column(c);
    const bool words = inputs.words[c];
    std::uint64_t occupied = 0;
    if (stride_ == 2) {  // both counts in one number
      for (int i = 0; i < m; ++i) {
        const Sample sample = samples[i];
        const std::uint8_t code = codes[sample.slot];
        pairs_[code] += static_cast<std::uint64_t>(sample.weight) << (sample.label * 32);
        occupied |= 1ULL << (code & 63);
      }
      sweep_pairs(c, weight, occupied, words, bins, best);
      return;
    }
    if (m <= kFew && !words && sweep_few(c, samples, m, weight, squares, codes, bins, best)) return;
    const int width = wide();
    histogram_.resize(static_cast<std::size_t>(kBins + 1) * width);
    std::int32_t* histogram = histogram_.data();
    for (int i = 0; i < m; ++i) {
      const Sample sample = samples[i];
      const std::uint8_t code = codes[sample.slot];
      histogram[code * width + sample.label] += sample.weight;
      occupied |= 1ULL << (code & 63);
    }
    switch (width) {  // the compiler unrolls what is short
      case 8: sweep_classes<8>(c, width, weight, occupied, words, bins, best); break;
      case 16: sweep_classes<16>(c, width, weight, occupied, words, bins, best); break;
      default: sweep_classes<0>(c, width, weight, occupied, words, bins, best);
    }
  }

  // The same splits of a few samples, sorted by their bins: sums are carried on from sample to sample, so that classes cost nothing. False
  // where values are missing.
  bool sweep_few(int c, const Sample* samples, int m, std::int64_t weight, std::int64_t squares, const std::uint8_t* codes, const Bins& bins,
                 Best& best) {
    std::uint64_t keys[kFew];
    for (int i = 0; i < m; ++i) {
      const Sample sample = samples[i];
      const std::uint8_t code = codes[sample.slot];
      if (code == kMissing) return false;
      const std::uint64_t key = static_cast<std::uint64_t>(code) << 32 | static_cast<std::uint64_t>(sample.label) << 16 | sample.weight;
      int place = i;
      for (; place > 0 && keys[place - 1] > key; --place) keys[place] = keys[place - 1];
      keys[place] = key;
    }
    if (keys[0] >> 32 == keys[m - 1] >> 32) return true;
    few_.resize(stride_, 0);
    std::int64_t l = 0, l_squares = 0, r_squares = squares;
    for (int i = 0; i + 1 < m; ++i) {
      const auto label = static_cast<int>(keys[i] >> 16 & 0xffff);
      const auto w = static_cast<std::int64_t>(keys[i] & 0xffff);
      const std::int64_t left = few_[label];
      l_squares += w * (2 * left + w);
      r_squares -= w * (2 * (totals_[label] - left) - w);
      few_[label] += static_cast<std::int32_t>(w);
      l += w;
      const auto bin = static_cast<int>(keys[i] >> 32);
      if (static_cast<int>(keys[i + 1] >> 32) != bin) try_split(c, bin, false, false, false, l, weight - l, l_squares, r_squares, bins, best);
    }
    for (int i = 0; i + 1 < m; ++i) few_[keys[i] >> 16 & 0xffff] = 0;
    return true;
  }

  // With class counts (bins, classes) in `histogram_`, which is left empty.
  template <int Fixed>
  void sweep_classes(int c, int wide, std::int64_t weight, std::uint64_t occupied, bool words, const Bins& bins, Best& best) {
    const int width = Fixed ? Fixed : wide;
    left_.assign(width, 0);
    std::int32_t* left = left_.data();
    const std::int32_t* totals = totals_.data();
    std::int32_t* missing = histogram_.data() + kMissing * width;
    std::int64_t missing_weight = 0;
    for (int k = 0; k < width; ++k) missing_weight += missing[k];
    std::int64_t l = 0;
    for (std::uint64_t rest = occupied; rest; rest &= rest - 1) {
      const int bin = std::countr_zero(rest);
      std::int32_t* row = histogram_.data() + bin * width;
      std::int32_t added = 0, l_squares = 0, r_squares = 0;
      if (words) {
        for (int k = 0; k < width; ++k) {
          const std::int32_t right = totals[k] - row[k];
          added += row[k];
          l_squares += row[k] * row[k];
          r_squares += right * right;
          row[k] = 0;
        }
        l = added;
      } else {
        for (int k = 0; k < width; ++k) {
          const std::int32_t sum = left[k] + row[k], right = totals[k] - sum;
          added += row[k];
          l_squares += sum * sum;
          r_squares += right * right;
          left[k] = sum;
          row[k] = 0;
        }
        l += added;
      }
      if (!added) continue;
      const bool last = !(rest & (rest - 1));
      try_split(c, bin, words, false, last, l, weight - l, l_squares, r_squares, bins, best);
      if (missing_weight && !words && !last) {
        l_squares = r_squares = 0;
        for (int k = 0; k < width; ++k) {
          const std::int32_t sum = left[k] + missing[k], right = totals[k] - sum;
          l_squares += sum * sum;
          r_squares += right * right;
        }
        try_split(c, bin, false, true, false, l + missing_weight, weight - l - missing_weight, l_squares, r_squares, bins, best);
      }
    }
    for (int k = 0; k < width; ++k) missing[k] = 0;
  }

  // The same for two classes, with the counts of both in one number.
  void sweep_pairs(int c, std::int64_t weight, std::uint64_t occupied, bool words, const Bins& bins, Best& best) {
    const std::int64_t totals[2] = {totals_[0], totals_[1]};
    const std::uint64_t missing = pairs_[kMissing];
    std::uint64_t left = 0;
    const auto try_at = [&](std::uint64_t pair, int bin, bool missing_left, bool last) {
      const auto a = static_cast<std::int64_t>(pair & 0xffffffff), b = static_cast<std::int64_t>(pair >> 32);
      const std::int64_t right_a = totals[0] - a, right_b = totals[1] - b;
      try_split(c, bin, words, missing_left, last, a + b, weight - a - b, a * a + b * b, right_a * right_a + right_b * right_b, bins, best);
    };
    for (std::uint64_t rest = occupied; rest; rest &= rest - 1) {
      const int bin = std::countr_zero(rest);
      const std::uint64_t pair = pairs_[bin];
      pairs_[bin] = 0;
      if (!pair) continue;
      left = words ? pair : left + pair;
      const bool last = !(rest & (rest - 1));
      try_at(left, bin, false, last);
      if (missing && !words && !last) try_at(left + missing, bin, true, false);
    }
    pairs_[kMissing] = 0;
  }

  void try_split(int c, int bin, bool words, bool missing_left, bool last, std::int64_t l, std::int64_t r, std::int64_t l_squares,
                 std::int64_t r_squares, const Bins& bins, Best& best) const {
    if (l < settings_.least || r < settings_.least) return;
    const std::int64_t over = l_squares * r + r_squares * l, under = l * r;
    if (best.column >= 0 && over * best.under <= best.over * under) return;
    // behind the last bin only what is missing is left
    const double threshold = words ? bin : last ? std::numeric_limits<double>::infinity() : bins.edge(c, bin);
    best = {0.0, threshold, over, under, c, bin, words ? kWord : kNumber, missing_left};
  }

  // The best split of a column by the variance that it takes away: the largest of S_L² / L + S_R² / R, sums about the node's mean.
  void try_values(int c, const Sample* samples, int m, std::int64_t weight, const Ring& ring, const Bins& bins, const Inputs& inputs,
                  Best& best) {
    const std::uint8_t* codes = bins.column(c);
    std::int64_t weights[kBins] = {}, missing_weight = 0;
    double sums[kBins] = {}, missing_sum = 0.0, total = 0.0;
    std::uint64_t occupied = 0;
    for (int i = 0; i < m; ++i) {
      const std::uint8_t code = codes[samples[i].slot];
      const double value = samples[i].weight * (ring.y[samples[i].slot] - center_);
      total += value;
      if (code == kMissing) {
        missing_weight += samples[i].weight;
        missing_sum += value;
      } else {
        weights[code] += samples[i].weight;
        sums[code] += value;
        occupied |= 1ULL << code;
      }
    }
    std::int64_t l = 0;
    double sum = 0.0;
    const int least = settings_.least;
    for (std::uint64_t rest = occupied; rest; rest &= rest - 1) {
      const int bin = std::countr_zero(rest);
      const bool last = !(rest & (rest - 1));
      if (inputs.words[c]) {
        l = 0;
        sum = 0.0;
      }
      l += weights[bin];
      sum += sums[bin];
      const int kind = inputs.words[c] ? kWord : kNumber;
      const double threshold = kind == kWord ? bin : last ? std::numeric_limits<double>::infinity() : bins.edge(c, bin);
      if (l >= least && weight - l >= least && weight > l)
        keep(best, gain(sum, l) + gain(total - sum, weight - l), c, bin, kind, threshold, false);
      if (missing_weight && kind == kNumber && !last && l + missing_weight >= least && weight - l - missing_weight >= least)
        keep(best, gain(sum + missing_sum, l + missing_weight) + gain(total - sum - missing_sum, weight - l - missing_weight), c, bin, kind,
             threshold, true);
    }
  }

  static double ratio(std::int64_t over, std::int64_t under) { return static_cast<double>(over) / static_cast<double>(under); }
  static double gain(double sum, std::int64_t weight) { return sum * sum / static_cast<double>(weight); }

  void restore(int columns, int classes, bool values, const Ring& ring) {
    const int ring_size = ring.size();
    stride_ = values ? 2 : classes;
    require_finite(all_counts_, "a leaf counts NaN");
    require_finite(all_importance_, "a gain is NaN");
    require_finite(all_units_, "a tree is in units of NaN");
    require(!node_counts_.empty() && node_counts_.size() == leaf_counts_.size() &&
                node_counts_.size() <= static_cast<std::size_t>(settings_.trees) + 1 && next_ >= 0 && next_ < settings_.trees &&
                all_importance_.size() == node_counts_.size() * columns && all_units_.size() == 2 * node_counts_.size(),
            "a forest has another number of trees");
    require(credit_ <= 0.0 && credit_ - credit_ == 0.0, "work is owed that was to be done at once");
    require(begun_ <= ring.count, "a tree was begun in the future");
    std::size_t node = 0, count = 0;
    trees_.assign(node_counts_.size() - 1, Tree{});
    for (std::size_t t = 0; t < node_counts_.size(); ++t) {
      Tree& tree = t < trees_.size() ? trees_[t] : building_;
      require(node_counts_[t] >= (t < trees_.size() ? 1 : 0) && leaf_counts_[t] >= 0, "a tree has no node");
      const std::size_t nodes = node_counts_[t], counts = static_cast<std::size_t>(leaf_counts_[t]) * stride_;
      require(node + nodes <= all_nodes_.size() && count + counts <= all_counts_.size(), "a tree is cut off");
      tree.nodes.assign(all_nodes_.begin() + node, all_nodes_.begin() + node + nodes);
      tree.counts.assign(all_counts_.begin() + count, all_counts_.begin() + count + counts);
      tree.importance.assign(all_importance_.begin() + t * columns, all_importance_.begin() + (t + 1) * columns);
      tree.center = all_units_[2 * t];
      tree.scale = all_units_[2 * t + 1];
      require(tree.scale > 0.0, "a tree is in units of 0");
      check(tree, columns, leaf_counts_[t], t < trees_.size());
      check_counts(tree, values);
      node += nodes;
      count += counts;
    }
    require(node == all_nodes_.size() && count == all_counts_.size(), "there are more nodes or counts than the trees have");
    require(sampled_.size() % 3 == 0 && stacked_.size() % 3 == 0, "the tree that is being built is cut off");
    samples_.clear();
    std::int64_t weight = 0;
    for (std::size_t i = 0; i < sampled_.size(); i += 3) {
      weight += sampled_[i + 1];
      require(sampled_[i] < ring_size && sampled_[i + 1] > 0 && sampled_[i + 1] <= kRing && sampled_[i + 2] < std::max(classes, 1),
              "a sample lies outside of the ring");
      samples_.push_back({sampled_[i], sampled_[i + 1], sampled_[i + 2], 0});
    }
    require(weight <= kRing, "a tree has more samples than events are remembered");
    require(stacked_.empty() || !building_.nodes.empty(), "a tree that is being built has no root");
    stack_.clear();
    for (std::size_t i = 0; i < stacked_.size(); i += 3) {
      const Open open{stacked_[i], stacked_[i + 1], stacked_[i + 2]};
      require(open.begin >= 0 && open.begin < open.end && open.end <= static_cast<std::int32_t>(samples_.size()) && open.node >= 0 &&
                  open.node < static_cast<std::int32_t>(building_.nodes.size()),
              "a node that is to be split has no samples");
      stack_.push_back(open);
    }
  }

  // Every leaf has met an event.
  void check_counts(const Tree& tree, bool values) const {
    for (std::size_t first = 0; first < tree.counts.size(); first += stride_) {
      const float* row = tree.counts.data() + first;
      float total = row[0];
      for (int k = 1; k < stride_ && !values; ++k) total += row[k];
      require(total >= 1.0f, "a leaf has no events");
    }
  }

  // A node's children come after it, so that every walk ends.
  static void check(const Tree& tree, int columns, std::int32_t leaves, bool whole) {
    const auto nodes = static_cast<std::int32_t>(tree.nodes.size());
    for (std::int32_t n = 0; n < nodes; ++n) {
      const Node& each = tree.nodes[n];
      if (each.kind == kLeaf) {
        require(each.child >= 0 && (each.child < leaves || (!whole && each.child == 0)), "a leaf has no counts");
      } else {
        require(each.kind <= kWord && each.child > n && each.child + 1 < nodes && each.column < columns, "a tree's nodes do not fit together");
      }
    }
  }
};

}  // namespace online
