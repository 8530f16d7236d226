// A gated recurrent network over bytes that learns while it reads: p(next byte) from a state of `hidden` numbers.
//
// r = σ(E_r[x] + U_r h + b_r), z = σ(E_z[x] + U_z h + b_z), n = tanh(E_n[x] + b_n + r ⊙ (U_n h + c_n)), h' = n + z ⊙ (h − n)
// (Cho et al., "Learning Phrase Representations using RNN Encoder–Decoder", 2014, with the reset gate behind the product). Every `chunk` bytes
// one step of Adam goes back through them (Williams and Peng, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network
// Trajectories", 1990) and through as many bytes of each past piece that is read beside them: replay (Robins, "Catastrophic Forgetting,
// Rehearsal and Pseudorehearsal", 1995).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../online/elementary.h"
#include "../online/state.h"
#include "floats.h"

namespace language {

enum class Update : int { kNone = 0, kAll = 1, kAdapters = 2 };

struct GruFields {
  int hidden = 128, chunk = 32, replay = 3, recent = 1, rank = 8;
  double rate = 2e-3;
  Update update = Update::kAll;
  std::uint64_t seed = 0;
  std::size_t memory = 1 << 20;  // bytes of past pieces
};

constexpr int kBytes = 256;
constexpr int kChunksOfPiece = 16;

class Gru {
 public:
  explicit Gru(const GruFields& fields) : f_(fields) {
    const std::size_t h = f_.hidden;
    at_u_ = kBytes * 3 * h;
    at_v_ = at_u_ + h * 3 * h;
    at_b_ = at_v_ + h * kBytes;
    at_cn_ = at_b_ + 3 * h;
    at_c_ = at_cn_ + h;
    size_ = at_c_ + kBytes;
    weights_.resize(size_);
    online::Random draw{f_.seed * 0x2545f4914f6cdd1dULL + 1};
    const double of_input = 0.3, of_state = std::sqrt(1.0 / static_cast<double>(h)) * 1.7320508;
    for (std::size_t i = 0; i < at_u_; ++i) weights_[i] = static_cast<float>(of_input * draw.symmetric());
    for (std::size_t i = at_u_; i < at_v_; ++i) weights_[i] = static_cast<float>(of_state * draw.symmetric());
    for (std::size_t i = at_v_; i < at_b_; ++i) weights_[i] = static_cast<float>(0.3 * of_state * draw.symmetric());
    for (std::size_t i = at_b_; i < size_; ++i) weights_[i] = 0.0f;
    for (std::size_t i = 0; i < h; ++i) weights_[at_b_ + h + i] = 1.0f;  // the state is kept at first
    if (f_.update == Update::kAdapters) new_adapters();
    begin_moments();
    const std::size_t lanes = 1 + f_.replay;
    state_.assign(lanes * h, 0.0f);
    lane_pieces_.assign(static_cast<std::size_t>(f_.replay) * piece_length(), 0);
    lane_at_.assign(f_.replay, -1);
    inputs_.assign(f_.chunk, 0);
    targets_.assign(f_.chunk, 0);
    live_.assign(static_cast<std::size_t>(f_.chunk) * h * kKept, 0.0f);
    live_p_.assign(static_cast<std::size_t>(f_.chunk) * kBytes, 0.0f);
    pieces_.assign(capacity() * piece_length(), 0);
    lately_.assign(static_cast<std::size_t>(kLately) * piece_length(), 0);
    fresh_.assign(piece_length(), 0);
    transposed_ = false;
  }

  // p (256,) of the next byte after the last. Changes nothing that counts: the step forward is kept for when that byte comes.
  const float* answer() {
    if (!answered_) {
      pending_.resize(kept_stride(1));
      pending_p_.resize(kBytes);
      step_forward(1, &last_, state_.data(), f_.hidden, pending_.data(), pending_p_.data());
      answered_ = true;
    }
    return pending_p_.data();
  }

  // The byte that came; where a chunk is full, the step of learning.
  void take(std::uint8_t byte, bool learns) {
    answer();
    const std::size_t h = f_.hidden;
    inputs_[at_] = last_;
    targets_[at_] = byte;
    std::copy(pending_.begin(), pending_.end(), live_.begin() + static_cast<std::ptrdiff_t>(at_ * kept_stride(1)));
    std::copy(pending_p_.begin(), pending_p_.end(), live_p_.begin() + static_cast<std::ptrdiff_t>(at_ * kBytes));
    std::copy_n(pending_.data() + kNew * h, h, state_.data());
    last_ = byte;
    answered_ = false;
    ++at_;
    if (at_ < static_cast<std::uint64_t>(f_.chunk)) {
      if (learns) remember(byte);
      return;
    }
    if (learns && f_.update != Update::kNone) learn();
    if (learns) remember(byte);
    at_ = 0;
  }

  std::uint64_t steps() const { return steps_; }

  template <class Walk>
  void walk(Walk& walk) {
    walk("weights", weights_);
    walk("first_moments", first_);
    walk("second_moments", second_);
    walk("base", base_);
    walk("adapters", adapters_);
    walk("state", state_);
    walk("lane_pieces", lane_pieces_);
    walk("lane_at", lane_at_);
    walk("inputs", inputs_);
    walk("targets", targets_);
    walk("live", live_);
    walk("live_p", live_p_);
    walk("pieces", pieces_);
    walk("lately", lately_);
    walk("fresh", fresh_);
    walk.scalar("fresh_length", fresh_length_);
    walk.scalar("seen", seen_);
    walk.scalar("draws", draws_);
    walk.scalar("at", at_);
    walk.scalar("last", last_);
    walk.scalar("steps", steps_);
    walk.scalar("first_power", first_power_);
    walk.scalar("second_power", second_power_);
  }

  // After a state was put in: raises where it does not fit the fields.
  void check() {
    using online::require;
    const std::size_t h = f_.hidden, lanes = 1 + f_.replay;
    require(weights_.size() == size_, "the network has another number of hidden units");
    require(state_.size() == lanes * h && lane_at_.size() == static_cast<std::size_t>(f_.replay), "another number of past pieces");
    require(inputs_.size() == static_cast<std::size_t>(f_.chunk) && targets_.size() == inputs_.size(), "chunks of another length");
    require(live_.size() == f_.chunk * kept_stride(1) && live_p_.size() == static_cast<std::size_t>(f_.chunk) * kBytes, "chunks of another length");
    require(at_ < static_cast<std::uint64_t>(f_.chunk), "a chunk that is over");
    require(pieces_.size() == capacity() * piece_length() && lately_.size() == kLately * piece_length(), "a memory of another size");
    require(lane_pieces_.size() == f_.replay * piece_length() && fresh_.size() == piece_length(), "pieces of another length");
    require(fresh_length_ < piece_length(), "a piece that is over");
    for (const std::int32_t at : lane_at_) require(at >= -1 && at < kChunksOfPiece, "a place behind a piece's end");
    online::require_finite(weights_, "the network's weights are not finite");
    online::require_finite(state_, "the network's state is not finite");
    online::require_finite(live_, "what the network keeps of a chunk is not finite");
    online::require_finite(live_p_, "the network's answers are not finite");
    if (f_.update == Update::kAdapters && adapters_.empty()) {
      new_adapters();
      begin_moments();
    } else if (f_.update == Update::kNone || (f_.update == Update::kAll && (!adapters_.empty() || first_.empty()))) {
      base_.clear();  // they are in the weights already
      adapters_.clear();
      begin_moments();
    }
    require(adapters_.empty() || (adapters_.size() == adapter_size() && base_.size() == at_b_ - at_u_), "adapters of another rank");
    online::require_finite(base_, "the network's weights are not finite");
    online::require_finite(adapters_, "the adapters are not finite");
    require(first_.size() == trained() && second_.size() == trained(), "moments of another number of weights");
    online::require_finite(first_, "the moments are not finite");
    for (const double power : {first_power_, second_power_}) require(power >= 0.0 && power <= 1.0, "powers beyond 0 and 1");
    for (const float value : second_) require(value >= 0.0f && value - value == 0.0f, "the moments are not finite");
    transposed_ = false;
    answered_ = false;
  }

 private:
  static constexpr int kKept = 6;  // of a step, by lane: the state before, r, z, n, U_n h + c_n, the state after
  static constexpr int kOld = 0, kR = 1, kZ = 2, kN = 3, kUn = 4, kNew = 5;
  static constexpr int kLately = 24;  // the latest pieces
  static constexpr double kBeta1 = 0.9, kBeta2 = 0.999;
  static constexpr double kHurry = 3.0, kHurrySteps = 1500.0;  // the first steps are so many times longer than later ones
  static constexpr float kEpsilon = 1e-8f, kMostNorm = 1.0f;

  std::size_t piece_length() const { return static_cast<std::size_t>(f_.chunk) * kChunksOfPiece + 1; }
  std::size_t capacity() const { return f_.replay ? f_.memory / piece_length() : 0; }
  std::size_t kept_stride(int lanes) const { return static_cast<std::size_t>(lanes) * f_.hidden * kKept; }
  std::size_t adapter_size() const {
    const std::size_t h = f_.hidden, r = f_.rank;
    return h * r + r * 3 * h + h * r + r * kBytes;
  }
  // Weights that are learnt: all, or the adapters and the biases.
  std::size_t trained() const {
    if (f_.update == Update::kNone) return 0;
    return f_.update == Update::kAll ? size_ : adapter_size() + (size_ - at_b_);
  }

  void begin_moments() {
    first_.assign(trained(), 0.0f);
    second_.assign(first_.size(), 0.0f);
    first_power_ = second_power_ = 1.0;
  }

  void new_adapters() {
    const std::size_t h = f_.hidden, r = f_.rank;
    base_.assign(weights_.begin() + static_cast<std::ptrdiff_t>(at_u_), weights_.begin() + static_cast<std::ptrdiff_t>(at_b_));
    adapters_.assign(adapter_size(), 0.0f);
    online::Random draw{f_.seed * 0x9fb21c651e98df25ULL + 7};
    const double scale = std::sqrt(3.0 / static_cast<double>(h));
    for (std::size_t i = 0; i < h * r; ++i) adapters_[i] = static_cast<float>(scale * draw.symmetric());
    for (std::size_t i = 0; i < h * r; ++i) adapters_[h * r + r * 3 * h + i] = static_cast<float>(scale * draw.symmetric());
  }

  // One byte for each lane: states (lanes, stride) → what is kept (kKept, lanes, hidden) and p (lanes, 256).
  void step_forward(int lanes, const std::uint8_t* bytes, const float* states, std::size_t stride, float* kept, float* p) {
    const std::size_t h = f_.hidden;
    gates_.resize(static_cast<std::size_t>(lanes) * 3 * h);
    std::fill(gates_.begin(), gates_.end(), 0.0f);
    const std::size_t block = static_cast<std::size_t>(lanes) * h;
    for (int l = 0; l < lanes; ++l) std::copy(states + l * stride, states + l * stride + h, kept + kOld * block + l * h);
    add_product(gates_.data(), 3 * h, kept + kOld * block, h, 1, weights_.data() + at_u_, 3 * h, lanes, f_.hidden, 3 * f_.hidden);
    const float* b = weights_.data() + at_b_;
    const float* cn = weights_.data() + at_cn_;
    for (int l = 0; l < lanes; ++l) {
      const float* e = weights_.data() + static_cast<std::size_t>(bytes[l]) * 3 * h;
      const float* g = gates_.data() + static_cast<std::size_t>(l) * 3 * h;
      float *old = kept + kOld * block + l * h, *r = kept + kR * block + l * h, *z = kept + kZ * block + l * h;
      float *n = kept + kN * block + l * h, *un = kept + kUn * block + l * h, *now = kept + kNew * block + l * h;
      for (std::size_t i = 0; i < h; ++i) {
        r[i] = sigmoid(e[i] + b[i] + g[i]);
        z[i] = sigmoid(e[h + i] + b[h + i] + g[h + i]);
        un[i] = g[2 * h + i] + cn[i];
        n[i] = tangent(e[2 * h + i] + b[2 * h + i] + r[i] * un[i]);
        now[i] = n[i] + z[i] * (old[i] - n[i]);
      }
    }
    for (int l = 0; l < lanes; ++l) std::copy(weights_.data() + at_c_, weights_.data() + size_, p + static_cast<std::size_t>(l) * kBytes);
    add_product(p, kBytes, kept + kNew * block, h, 1, weights_.data() + at_v_, kBytes, lanes, f_.hidden, kBytes);
    for (int l = 0; l < lanes; ++l) softmax(p + static_cast<std::size_t>(l) * kBytes);
  }

  static void softmax(float* p) {
    float most = p[0];
    for (int k = 1; k < kBytes; ++k) most = p[k] > most ? p[k] : most;
    for (int k = 0; k < kBytes; ++k) p[k] = exponential(p[k] - most);
    Eight sums = load(p);
    for (int k = 8; k < kBytes; k += 8) sums += load(p + k);
    const float total = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    const float scale = 1.0f / total;
    for (int k = 0; k < kBytes; ++k) p[k] *= scale;
  }

  // One step of Adam over the last chunk and the lanes' next ones.
  void learn() {
    const std::size_t h = f_.hidden, t_most = f_.chunk;
    lanes_.assign(1, 0);
    for (int l = 0; l < f_.replay; ++l)
      if (ready(l)) lanes_.push_back(l + 1);
    const std::size_t lanes = lanes_.size(), rows = lanes * t_most, block = lanes * h;
    kept_.resize(t_most * block * kKept);
    p_.resize(rows * kBytes);
    wide_inputs_.resize(rows);
    wide_targets_.resize(rows);
    for (std::size_t t = 0; t < t_most; ++t) {
      wide_inputs_[t * lanes] = inputs_[t];
      wide_targets_[t * lanes] = targets_[t];
      for (std::size_t l = 1; l < lanes; ++l) {
        const int lane = lanes_[l] - 1;
        const std::uint8_t* piece = lane_pieces_.data() + lane * piece_length() + static_cast<std::size_t>(lane_at_[lane]) * t_most;
        wide_inputs_[t * lanes + l] = piece[t];
        wide_targets_[t * lanes + l] = piece[t + 1];
      }
    }
    // forward over the past pieces; what was kept of the text itself stands beside them
    if (lanes > 1) {
      const std::size_t others = lanes - 1, other_block = others * h;
      other_kept_.resize(other_block * kKept);
      other_p_.resize(others * kBytes);
      other_state_.resize(other_block);
      for (std::size_t l = 0; l < others; ++l)
        std::copy_n(state_.data() + static_cast<std::size_t>(lanes_[l + 1]) * h, h, other_state_.data() + l * h);
      for (std::size_t t = 0; t < t_most; ++t) {
        step_forward(static_cast<int>(others), wide_inputs_.data() + t * lanes + 1, other_state_.data(), h, other_kept_.data(), other_p_.data());
        std::copy_n(other_kept_.data() + kNew * other_block, other_block, other_state_.data());
        for (int k = 0; k < kKept; ++k)
          std::copy_n(other_kept_.data() + k * other_block, other_block, kept_.data() + t * block * kKept + k * block + h);
        std::copy_n(other_p_.data(), others * kBytes, p_.data() + (t * lanes + 1) * kBytes);
      }
      for (std::size_t l = 0; l < others; ++l) {
        std::copy_n(other_state_.data() + l * h, h, state_.data() + static_cast<std::size_t>(lanes_[l + 1]) * h);
        const int lane = lanes_[l + 1] - 1;
        if (++lane_at_[lane] == kChunksOfPiece) lane_at_[lane] = -1;
      }
    }
    for (std::size_t t = 0; t < t_most; ++t) {
      for (int k = 0; k < kKept; ++k)
        std::copy_n(live_.data() + t * kept_stride(1) + k * h, h, kept_.data() + t * block * kKept + k * block);
      std::copy_n(live_p_.data() + t * kBytes, kBytes, p_.data() + t * lanes * kBytes);
    }
    backward(static_cast<int>(lanes));
    descend();
  }

  void backward(int lanes) {
    const std::size_t h = f_.hidden, t_most = f_.chunk, rows = lanes * t_most, block = lanes * h;
    transpose();
    gradient_.assign(size_, 0.0f);
    const float scale = 1.0f / static_cast<float>(rows);
    for (std::size_t row = 0; row < rows; ++row) {
      float* d = p_.data() + row * kBytes;
      d[wide_targets_[row]] -= 1.0f;
      for (int k = 0; k < kBytes; ++k) d[k] *= scale;
    }
    of_states_.assign(rows * h, 0.0f);
    add_product(of_states_.data(), h, p_.data(), kBytes, 1, v_turned_.data(), h, static_cast<int>(rows), kBytes, f_.hidden);
    of_inputs_.resize(rows * 3 * h);
    of_products_.resize(rows * 3 * h);
    olds_.resize(rows * h);
    news_.resize(rows * h);
    carried_.assign(block, 0.0f);
    for (std::size_t t = t_most; t-- > 0;) {
      const float* kept = kept_.data() + t * block * kKept;
      std::copy_n(kept + kOld * block, block, olds_.data() + t * block);
      std::copy_n(kept + kNew * block, block, news_.data() + t * block);
      for (int l = 0; l < lanes; ++l) {
        const float *old = kept + kOld * block + l * h, *r = kept + kR * block + l * h, *z = kept + kZ * block + l * h;
        const float *n = kept + kN * block + l * h, *un = kept + kUn * block + l * h;
        float* carried = carried_.data() + l * h;
        const float* of_state = of_states_.data() + (t * lanes + l) * h;
        float* di = of_inputs_.data() + (t * lanes + l) * 3 * h;
        float* dp = of_products_.data() + (t * lanes + l) * 3 * h;
        for (std::size_t i = 0; i < h; ++i) {
          const float d = carried[i] + of_state[i];
          const float dn = d * (1.0f - z[i]) * (1.0f - n[i] * n[i]);
          di[i] = dp[i] = dn * un[i] * r[i] * (1.0f - r[i]);
          di[h + i] = dp[h + i] = d * (old[i] - n[i]) * z[i] * (1.0f - z[i]);
          di[2 * h + i] = dn;
          dp[2 * h + i] = dn * r[i];
          carried[i] = d * z[i];
        }
      }
      add_product(carried_.data(), h, of_products_.data() + t * lanes * 3 * h, 3 * h, 1, u_turned_.data(), h, lanes, 3 * f_.hidden, f_.hidden);
    }
    float* g = gradient_.data();
    add_product(g + at_u_, 3 * h, olds_.data(), 1, h, of_products_.data(), 3 * h, f_.hidden, static_cast<int>(rows), 3 * f_.hidden);
    add_product(g + at_v_, kBytes, news_.data(), 1, h, p_.data(), kBytes, f_.hidden, static_cast<int>(rows), kBytes);
    for (std::size_t row = 0; row < rows; ++row) {
      const float* di = of_inputs_.data() + row * 3 * h;
      const float* dp = of_products_.data() + row * 3 * h + 2 * h;
      const float* d = p_.data() + row * kBytes;
      float* e = g + static_cast<std::size_t>(wide_inputs_[row]) * 3 * h;
      for (std::size_t i = 0; i < 3 * h; ++i) {
        e[i] += di[i];
        g[at_b_ + i] += di[i];
      }
      for (std::size_t i = 0; i < h; ++i) g[at_cn_ + i] += dp[i];
      for (int k = 0; k < kBytes; ++k) g[at_c_ + k] += d[k];
    }
  }

  // Adam (Kingma and Ba, 2015) on what is learnt, by a gradient of norm 1 at most.
  void descend() {
    if (f_.update == Update::kAdapters) {
      adapter_gradient();
      adam(adapters_.data(), of_adapters_.data(), 0, adapter_size(), scale_of(of_adapters_.data(), of_adapters_.size(), true));
      adam(weights_.data() + at_b_, gradient_.data() + at_b_, adapter_size(), size_ - at_b_, scale_);
      weigh_adapters();
    } else {
      adam(weights_.data(), gradient_.data(), 0, size_, scale_of(gradient_.data(), size_, false));
    }
    ++steps_;
    transposed_ = false;
  }

  float scale_of(const float* gradient, std::size_t count, bool with_biases) {
    first_power_ *= kBeta1;
    second_power_ *= kBeta2;
    float norm = squares(gradient, count);
    if (with_biases) norm += squares(gradient_.data() + at_b_, size_ - at_b_);
    norm = std::sqrt(norm);
    return scale_ = norm > kMostNorm ? kMostNorm / norm : 1.0f;
  }

  static float squares(const float* values, std::size_t count) {
    const std::size_t whole = count / 8 * 8;
    float total = 0.0f;
    Eight sums = {};
    for (std::size_t i = 0; i < whole; i += 8) sums += load(values + i) * load(values + i);
    for (int k = 0; k < 8; ++k) total += sums[k];
    for (std::size_t i = whole; i < count; ++i) total += values[i] * values[i];
    return total;
  }

  void adam(float* values, const float* gradient, std::size_t at, std::size_t count, float scale) {
    const double now = f_.rate * (1.0 + kHurry / (1.0 + static_cast<double>(steps_) / kHurrySteps));
    const auto rate = static_cast<float>(now / (1.0 - first_power_));
    const auto root = static_cast<float>(1.0 / (1.0 - second_power_));
    constexpr auto b1 = static_cast<float>(kBeta1), b2 = static_cast<float>(kBeta2);
    float *first = first_.data() + at, *second = second_.data() + at;
    for (std::size_t i = 0; i < count; ++i) {
      const float g = gradient[i] * scale;
      first[i] = b1 * first[i] + (1.0f - b1) * g;
      second[i] = b2 * second[i] + (1.0f - b2) * (g * g);
      values[i] -= rate * first[i] / (std::sqrt(second[i] * root) + kEpsilon);
    }
  }

  // dA = dW Bᵀ and dB = Aᵀ dW of both products.
  void adapter_gradient() {
    const std::size_t h = f_.hidden, r = f_.rank;
    of_adapters_.assign(adapter_size(), 0.0f);
    std::size_t at = 0, from = at_u_;
    for (const std::size_t columns : {3 * h, static_cast<std::size_t>(kBytes)}) {
      const float *a = adapters_.data() + at, *b = a + h * r, *d = gradient_.data() + from;
      float *da = of_adapters_.data() + at, *db = da + h * r;
      for (std::size_t i = 0; i < h; ++i)
        for (std::size_t k = 0; k < r; ++k) da[i * r + k] = dot(d + i * columns, b + k * columns, static_cast<int>(columns));
      add_product(db, columns, a, 1, r, d, columns, f_.rank, f_.hidden, static_cast<int>(columns));
      at += h * r + r * columns;
      from += h * columns;
    }
  }

  // W = W₀ + A B.
  void weigh_adapters() {
    const std::size_t h = f_.hidden, r = f_.rank;
    std::copy(base_.begin(), base_.end(), weights_.begin() + static_cast<std::ptrdiff_t>(at_u_));
    std::size_t at = 0, to = at_u_;
    for (const std::size_t columns : {3 * h, static_cast<std::size_t>(kBytes)}) {
      add_product(weights_.data() + to, columns, adapters_.data() + at, r, 1, adapters_.data() + at + h * r, columns, f_.hidden, f_.rank,
                  static_cast<int>(columns));
      at += h * r + r * columns;
      to += h * columns;
    }
  }

  void transpose() {
    if (transposed_) return;
    const std::size_t h = f_.hidden;
    u_turned_.resize(h * 3 * h);
    v_turned_.resize(h * kBytes);
    turn(weights_.data() + at_u_, u_turned_.data(), h, 3 * h);
    turn(weights_.data() + at_v_, v_turned_.data(), h, kBytes);
    transposed_ = true;
  }
  static void turn(const float* from, float* to, std::size_t rows, std::size_t columns) {
    for (std::size_t i = 0; i < rows; i += 16)
      for (std::size_t j = 0; j < columns; j += 16)
        for (std::size_t k = i; k < i + 16; ++k)
          for (std::size_t n = j; n < j + 16; ++n) to[n * rows + k] = from[k * columns + n];
  }

  // -- past pieces

  // The text as pieces: the latest ones, and a sample of all (Vitter, "Random Sampling with a Reservoir", 1985).
  void remember(std::uint8_t byte) {
    if (!capacity()) return;
    fresh_[fresh_length_++] = byte;
    if (fresh_length_ < piece_length()) return;
    fresh_length_ = 0;
    std::copy(fresh_.begin(), fresh_.end(), lately_.begin() + static_cast<std::ptrdiff_t>(seen_ % kLately * piece_length()));
    const std::uint64_t place = seen_ < capacity() ? seen_ : draw() % (seen_ + 1);
    if (place < capacity()) std::copy(fresh_.begin(), fresh_.end(), pieces_.begin() + static_cast<std::ptrdiff_t>(place * piece_length()));
    ++seen_;
  }

  // Whether a lane has a chunk to read; where its piece is over, it takes up another.
  bool ready(int lane) {
    if (lane_at_[lane] >= 0) return true;
    if (!seen_) return false;
    const bool latest = lane < f_.recent;
    const std::uint64_t count = std::min<std::uint64_t>(seen_, latest ? kLately : capacity());
    const std::uint8_t* piece = (latest ? lately_ : pieces_).data() + draw() % count * piece_length();
    std::copy_n(piece, piece_length(), lane_pieces_.data() + lane * piece_length());
    lane_at_[lane] = 0;
    std::fill_n(state_.data() + (1 + lane) * static_cast<std::size_t>(f_.hidden), f_.hidden, 0.0f);
    return true;
  }

  std::uint64_t draw() { return online::Random{f_.seed * 0xd1342543de82ef95ULL + draws_++ * 0x9e3779b97f4a7c15ULL}.next(); }

  GruFields f_;
  std::size_t at_u_, at_v_, at_b_, at_cn_, at_c_, size_;  // E (256, 3 hidden) stands first, then U, V and the biases
  std::vector<float> weights_, first_, second_, base_, adapters_;
  std::vector<float> state_;  // (lanes, hidden): of the text, and of the past pieces
  std::vector<std::uint8_t> lane_pieces_, inputs_, targets_, pieces_, lately_, fresh_;
  std::vector<std::int32_t> lane_at_;
  std::vector<float> live_, live_p_;  // of each byte of the chunk so far
  std::uint64_t fresh_length_ = 0, seen_ = 0, draws_ = 0, at_ = 0, steps_ = 0;
  std::uint8_t last_ = 0;
  double first_power_ = 1.0, second_power_ = 1.0;
  // room to work in
  float scale_ = 1.0f;
  bool answered_ = false, transposed_ = false;
  std::vector<int> lanes_;
  std::vector<std::uint8_t> wide_inputs_, wide_targets_;
  std::vector<float> pending_, pending_p_, gates_, kept_, p_, other_kept_, other_p_, other_state_, gradient_, of_adapters_, of_states_, of_inputs_, of_products_;
  std::vector<float> olds_, news_, carried_, u_turned_, v_turned_;
};

}  // namespace language
