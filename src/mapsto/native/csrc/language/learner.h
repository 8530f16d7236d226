// A language model over bytes: contexts of several orders and a recurrent network, mixed bit by bit; all learn from each byte that comes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "contexts.h"
#include "gru.h"
#include "logistic_mixer.h"

namespace language {

enum class Members : int { kBoth = 0, kContexts = 1, kNetwork = 2 };

struct Fields {
  GruFields network;
  Members members = Members::kBoth;
  int order = 6;     // of the longest context
  int bits = 18;     // 2^bits slots for each order
  bool frozen = false;
};

// Inputs of a node: orders 0 to 6, the word, the word and the one before, the match, the network, and 1.
constexpr int kMostOrder = 6, kWord = 7, kWords = 8, kMatch = 9, kNetworkInput = 10, kOne = 11, kShown = 11;

class Learner {
 public:
  explicit Learner(const Fields& fields)
      : f_(fields), network_(fields.network), both_(kSizes, 0.25f, fields.members == Members::kBoth ? -1 : kNetworkInput),
        contexts_(kSizes, 0.25f, kNetworkInput) {
    low_.begin(static_cast<std::size_t>(kNodes) * (1 + 256));
    for (int list = 0; list < kLists; ++list) {
      const bool wide = list < kWide;  // of as many bytes as the others
      lists_.emplace_back(f_.bits - wide, wide ? 15 : 7);
      meanings_.emplace_back();
      meanings_.back().begin(kMeanings);
    }
    match_.begin(64);
    past_.assign(std::size_t{1} << kPastBits, 0);
    places_.assign(std::size_t{1} << kPlaceBits, 0);
    usage_.assign(kShown, 0.0f);
    x_.assign(static_cast<std::size_t>(kNodes) * kInputs, 0.0f);
    p_.assign(kTree, 0.0);
    seek();
  }

  // p (256,) of the next byte. Changes nothing that counts.
  void answer(double* p) {
    look();
    if (f_.members == Members::kNetwork) {
      const float* q = network_.answer();
      const double total = total_of(q);
      for (int s = 0; s < kBytes; ++s) p[s] = (static_cast<double>(q[s]) + kLeast) / total;
      return;
    }
    p_[1] = 1.0;
    int chosen[kSets];
    float logits[kSets];
    for (int node = 1; node < kNodes; ++node) {
      choose(node, chosen);
      const double one = squash(both_.answer(node, x_.data() + static_cast<std::size_t>(node) * kInputs, chosen, logits));
      p_[2 * node + 1] = p_[node] * one;
      p_[2 * node] = p_[node] * (1.0 - one);
    }
    std::copy_n(p_.data() + kBytes, kBytes, p);
  }

  // Learn the byte that came. Into `parts`: what the contexts alone and the network alone gave it; NaN for what is not there.
  void learn(std::uint8_t byte, double* parts) {
    look();
    parts[0] = parts[1] = online::kNaN;
    if (f_.members != Members::kNetwork) learn_contexts(byte, parts);
    if (f_.members != Members::kContexts) {
      const float* q = network_.answer();
      parts[1] = (static_cast<double>(q[byte]) + kLeast) / total_of(q);
      network_.take(byte, !f_.frozen);
    }
    ++length_;
    word_ = is_letter(byte) ? (word_ + byte + 1) * 0x2f0b4c47b5ull : (word_ ? (before_ = word_, 0) : 0);
    last_ = (last_ << 8) | byte;
    if (f_.members != Members::kNetwork) {
      follow(byte);
      seek();
    }
    looked_ = false;
  }

  void shares(double* shares) const {
    double total = 0.0;
    for (const float value : usage_) total += value;
    for (int i = 0; i < kShown; ++i) shares[i] = total > 0.0 ? static_cast<double>(usage_[i]) / total : 0.0;
  }
  std::uint64_t length() const { return length_; }
  std::uint64_t steps() const { return network_.steps(); }

  template <class Walk>
  void walk(Walk& walk) {
    walk.prefix = "";
    walk.scalar("length", length_);
    if (f_.members != Members::kContexts) {
      walk.prefix = "network.";
      network_.walk(walk);
    }
    if (f_.members != Members::kNetwork) {
      walk.prefix = "low.";
      low_.walk(walk);
      for (int list = 0; list < kLists; ++list) {
        walk.prefix = "lists" + std::to_string(list) + ".";
        lists_[list].walk(walk);
        meanings_[list].walk(walk);
      }
      walk.prefix = "match.";
      match_.walk(walk);
      walk("past", past_);
      walk("places", places_);
      walk.scalar("at", match_at_);
      walk.scalar("length", match_length_);
      walk.prefix = "mixer.";
      both_.walk(walk);
      walk.prefix = "mixer_of_contexts.";
      contexts_.walk(walk);
      walk.prefix = "text.";
      walk("usage", usage_);
      walk.scalar("last", last_);
      walk.scalar("word", word_);
      walk.scalar("before", before_);
    }
    walk.prefix = "";
  }

  void check() {
    using online::require;
    if (f_.members != Members::kContexts) network_.check();
    if (f_.members != Members::kNetwork) {
      const Learner fresh{Fields{{16, 2, 0}, f_.members, f_.order, 8, false}};
      low_.check(static_cast<std::size_t>(kNodes) * (1 + 256));
      for (const Lists& list : lists_) list.check();
      for (const Adaptive& meaning : meanings_) meaning.check(kMeanings);
      match_.check(64);
      require(past_.size() == std::size_t{1} << kPastBits && places_.size() == std::size_t{1} << kPlaceBits, "a text of another length");
      both_.check(fresh.both_);
      contexts_.check(fresh.contexts_);
      require(match_at_ >= 0 && match_at_ < 1 << kPastBits && match_length_ >= 0, "a match that is none");
      for (const std::int32_t place : places_) require(place >= 0 && place < 1 << kPastBits, "a place behind the text");
      require(usage_.size() == kShown, "another number of members");
      online::require_finite(usage_, "shares are not finite");
      seek();
    }
    looked_ = false;
  }

 private:
  static constexpr double kLeast = 1e-7;  // that the network gives to each byte
  static double total_of(const float* q) {
    double total = 0.0;
    for (int s = 0; s < kBytes; ++s) total += static_cast<double>(q[s]) + kLeast;
    return total;
  }

  static constexpr int kLists = 7;  // orders 2 to 6, the word, the word and the one before
  static constexpr int kWide = 3;   // of these, orders 2 to 4, have lists of 15 bytes
  static constexpr int kLevels = 16, kPairs = kLevels * kLevels * 3, kMeanings = kPairs * 4;
  static constexpr int kPastBits = 20, kPlaceBits = 18, kLeastMatch = 6;
  static constexpr int kSizes[kSets] = {kNodes, 8 * 4 * 9, 256 * 9};
  // of the mixers' first and second layer; the first steps of the former are so many times longer
  static constexpr float kRate = 0.0015f, kLastRate = 0.002f, kHurry = 6.0f, kHurryBytes = 30000.0f;
  static constexpr int kLowLimit = 250, kMeaningLimit = 400;  // probabilities follow the last bits, about as many as these

  static bool is_letter(std::uint8_t byte) { return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte >= 128; }

  static int level(int count) {
    constexpr int kUnit = Lists::kUnit;
    if (!count) return 0;
    if (count < 4 * kUnit) return 1 + count * 2 / kUnit - (count * 2 >= kUnit);
    return count < 6 * kUnit ? 8 : count < 9 * kUnit ? 9 : count < 13 * kUnit ? 10 : count < 20 * kUnit ? 11 : count < 30 * kUnit ? 12 : count < 50 * kUnit ? 13 : count < 80 * kUnit ? 14 : 15;
  }

  // Find the contexts of the next byte.
  void seek() {
    std::uint64_t hash = 0;
    for (int list = 0; list < kLists; ++list) {
      const int order = list + 2;
      if (order <= kMostOrder) {
        if (order > f_.order) continue;
        hash = (last_ & ((std::uint64_t{1} << (8 * order)) - 1)) * 0xc6a4a7935bd1e995ULL + static_cast<std::uint64_t>(order);
      } else if (list == kWord - 2) {
        hash = (word_ + 11) * 0x8da6b343c3f1ab17ULL + (last_ & 0xff);
      } else {
        hash = (word_ + 3) * 0xd8163841b5f12d4dULL + before_ * 0xcb1ab31f15d7ULL + (last_ & 0xff) + 5;
      }
      hash ^= hash >> 29;
      lists_[list].seek(hash);
    }
  }

  bool is_used(int list) const { return list + 2 > kMostOrder || list + 2 <= f_.order; }

  // Inputs of each node.
  void look() {
    if (looked_) return;
    looked_ = true;
    if (f_.members == Members::kNetwork) return;
    const std::size_t first = (1 + (last_ & 0xff)) * kNodes;
    for (int node = 1; node < kNodes; ++node) {
      float* x = x_.data() + static_cast<std::size_t>(node) * kInputs;
      std::fill_n(x, kInputs, 0.0f);
      x[0] = low_.logit[node];
      x[1] = low_.logit[first + node];
      x[kOne] = 0.3f;
    }
    hits_ = 0;
    std::uint16_t counts[kTree];
    for (int list = 0; list < kLists; ++list) {
      found_[list] = 0;
      const std::uint8_t* pairs = is_used(list) ? lists_[list].pairs() : nullptr;
      if (!pairs) continue;
      if (list + 2 <= kMostOrder) hits_ = list + 1;
      std::fill_n(counts, kTree, std::uint16_t{0});
      for (int k = 0; k < lists_[list].width() && pairs[2 * k + 1]; ++k)
        for (int node = kBytes + pairs[2 * k]; node; node >>= 1) counts[node] = static_cast<std::uint16_t>(counts[node] + pairs[2 * k + 1]);
      int different = 0;
      while (different < lists_[list].width() && pairs[2 * different + 1]) ++different;
      const int kind = different == 1 ? 0 : different == 2 ? 1 : different <= 4 ? 2 : 3;
      const int latest = kBytes + pairs[0];
      for (int k = 0; k < lists_[list].width() && pairs[2 * k + 1]; ++k) {
        for (int depth = 8; depth > 0; --depth) {
          const int node = (kBytes + pairs[2 * k]) >> depth;
          const int recent = latest >> depth == node ? 1 + ((latest >> (depth - 1)) & 1) : 0;
          const int meaning = (level(counts[2 * node]) * kLevels + level(counts[2 * node + 1])) * 3 + recent + kind * kPairs;
          meaning_[list][node] = static_cast<std::uint16_t>(meaning);
          x_[static_cast<std::size_t>(node) * kInputs + list + 2] = meanings_[list].logit[meaning];
        }
      }
      found_[list] = 1;
      std::copy_n(counts, kNodes, counts_[list]);
    }
    if (match_length_) {
      const int guess = kBytes + past_[match_at_ & ((1 << kPastBits) - 1)];
      const float logit = match_.logit[match_level()];
      for (int depth = 8; depth > 0; --depth)
        x_[static_cast<std::size_t>(guess >> depth) * kInputs + kMatch] = (guess >> (depth - 1)) & 1 ? logit : -logit;
    }
    if (f_.members == Members::kBoth) {
      const float* q = network_.answer();
      float sums[kTree];
      for (int s = 0; s < kBytes; ++s) sums[kBytes + s] = q[s] + 1e-7f;
      for (int node = kNodes - 1; node; --node) sums[node] = sums[2 * node] + sums[2 * node + 1];
      double logs[kTree];
      for (int node = 0; node < kTree; ++node) logs[node] = online::logarithm(node < 1 ? 1.0 : static_cast<double>(sums[node]));
      for (int node = 1; node < kNodes; ++node)
        x_[static_cast<std::size_t>(node) * kInputs + kNetworkInput] = static_cast<float>(logs[2 * node + 1] - logs[2 * node]);
    }
  }

  int match_level() const { return static_cast<int>(match_length_ < 16 ? match_length_ : match_length_ < 32 ? 16 + (match_length_ - 16) / 4 : 20 + (match_length_ >= 64) + (match_length_ >= 200)); }

  void choose(int node, int (&chosen)[kSets]) const {
    int depth = 0;
    for (int above = node; above > 1; above >>= 1) ++depth;
    chosen[0] = node;
    chosen[1] = (hits_ * 4 + (match_length_ == 0 ? 0 : match_length_ < 12 ? 1 : match_length_ < 24 ? 2 : 3)) * 9 + depth;
    chosen[2] = static_cast<int>(last_ & 0xff) * 9 + depth;
  }

  void learn_contexts(std::uint8_t byte, double* parts) {
    double p = 1.0;
    const int leaf = kBytes + byte;
    float logits[kSets];
    int chosen[kSets];
    const std::size_t first = (1 + (last_ & 0xff)) * kNodes;
    const float rate = kRate * (1.0f + kHurry / (1.0f + static_cast<float>(length_) / kHurryBytes));
    for (int depth = 8; depth > 0; --depth) {
      const int node = leaf >> depth, bit = (leaf >> (depth - 1)) & 1;
      const float* x = x_.data() + static_cast<std::size_t>(node) * kInputs;
      choose(node, chosen);
      const double one = squash(contexts_.answer(node, x, chosen, logits));
      p *= bit ? one : 1.0 - one;
      if (f_.frozen) continue;
      for (int i = 0; i < kShown; ++i) {
        const float part = both_.weight(node, i, chosen) * x[i];
        usage_[i] += 0.0005f * ((part < 0.0f ? -part : part) - usage_[i]);
      }
      both_.learn(node, x, chosen, bit, rate, kLastRate);
      contexts_.learn(node, x, chosen, bit, rate, kLastRate);
      low_.update(node, bit, kLowLimit);
      low_.update(first + node, bit, kLowLimit);
      for (int list = 0; list < kLists; ++list)
        if (found_[list] && counts_[list][node]) meanings_[list].update(meaning_[list][node], bit, kMeaningLimit);
    }
    parts[0] = p;
    if (f_.frozen) return;
    for (int list = 0; list < kLists; ++list)
      if (is_used(list)) lists_[list].update(byte);
    if (match_length_) match_.update(match_level(), past_[match_at_ & ((1 << kPastBits) - 1)] == byte, 250);
  }

  // The text goes on: where the longest match stands.
  void follow(std::uint8_t byte) {
    constexpr std::int32_t kMask = (1 << kPastBits) - 1;
    if (match_length_) {
      if (past_[match_at_ & kMask] == byte) {
        match_at_ = (match_at_ + 1) & kMask;
        match_length_ += match_length_ < 1000;
      } else {
        match_length_ = 0;
      }
    }
    if (f_.frozen) {  // nothing is kept of the text, and matches are looked up all the same
      if (!match_length_) find();
      return;
    }
    past_[written() & kMask] = byte;
    if (!match_length_) find();
    places_[hash_of_last()] = (written() + 1) & kMask;
  }
  std::int32_t written() const { return static_cast<std::int32_t>((length_ - 1) & ((1 << kPastBits) - 1)); }

  std::size_t hash_of_last() const {
    return static_cast<std::size_t>(((last_ & 0xffffffffffffULL) * 0x9e3779b97f4a7c15ULL) >> (64 - kPlaceBits));
  }
  void find() {
    const std::int32_t at = places_[hash_of_last()];
    constexpr std::int32_t kMask = (1 << kPastBits) - 1;
    std::int32_t same = 0;
    while (same < 7 && past_[(at - 1 - same) & kMask] == ((last_ >> (8 * same)) & 0xff)) ++same;
    if (same >= kLeastMatch) {
      match_at_ = at;
      match_length_ = same;
    }
  }

  Fields f_;
  Gru network_;
  Adaptive low_;  // orders 0 and 1
  std::vector<Lists> lists_;
  std::vector<Adaptive> meanings_;
  Adaptive match_;
  std::vector<std::uint8_t> past_;
  std::vector<std::int32_t> places_;  // by the hash of six bytes: what comes after them
  std::int32_t match_at_ = 0, match_length_ = 0;
  LogisticMixer both_, contexts_;
  std::vector<float> usage_;  // faded mean of each input's part in the logits
  std::uint64_t length_ = 0, last_ = 0, word_ = 0, before_ = 0;
  // of the next byte
  bool looked_ = false;
  int hits_ = 0;
  int found_[kLists] = {};
  std::uint16_t meaning_[kLists][kNodes] = {};
  std::uint16_t counts_[kLists][kNodes] = {};
  std::vector<float> x_;
  std::vector<double> p_;
};

}  // namespace language
