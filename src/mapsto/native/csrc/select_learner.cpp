// The mixtures of `online.select` behind a C interface: what is learnt lies in the caller's arrays, and no call fails.
//
// As `online/mixer.h`, for members that come and go: only those that are there have a part in an answer, and only they learn. A third pool
// follows the best member closely, and the mixtures are weighed more sharply: few members are all strong, and of few events.

#include <cmath>
#include <cstdint>
#include <vector>

#include "online/elementary.h"

#if defined(_WIN32)
#define MAPSTO_API extern "C" __declspec(dllexport)
#else
#define MAPSTO_API extern "C" __attribute__((visibility("default")))
#endif

// As `_Learnt` in `nn/online/mixtures.py`.
struct Learnt {
  double* weights;  // (kLinear, members), of the log-linear mixtures
  double* right;    // (kPools, members), discounted right answers
  double* good;     // (kLinear + kPools,), of the mixtures
  double* events;   // (1,)
  std::int32_t members;
};

namespace {

constexpr int kLinear = 4, kPools = 3, kAll = kLinear + kPools;
constexpr double kUniform = 0.02;  // share of the uniform distribution in each member, so that no logarithm is large
constexpr double kRate[kPools] = {0.3, 1.0, 3.0}, kMemory[kPools] = {0.998, 0.999, 0.999};
constexpr double kLastRate = 1.0, kLastMemory = 0.998;

thread_local std::vector<int> present;
thread_local std::vector<double> logs, mixed, pools;

void share(const double* counts, double rate, double* weights, int n) {
  for (int i = 0; i < n; ++i) weights[i] = rate * counts[i];
  online::softmax(weights, n);
}

// From `said` (members, classes) what each mixture says, and from these the answer (classes,).
void answer(const Learnt& learnt, const double* said, int classes, double* answer) {
  const int n = static_cast<int>(present.size()), members = learnt.members;
  logs.resize(static_cast<std::size_t>(n) * classes);
  pools.resize(n);
  mixed.assign(static_cast<std::size_t>(kAll) * classes, 0.0);
  for (int i = 0; i < n; ++i)
    for (int k = 0; k < classes; ++k)
      logs[i * classes + k] = online::logarithm((1.0 - kUniform) * said[present[i] * classes + k] + kUniform / classes);
  for (int e = 0; e < kLinear; ++e) {
    double* q = mixed.data() + e * classes;
    for (int i = 0; i < n; ++i)
      for (int k = 0; k < classes; ++k) q[k] += learnt.weights[e * members + present[i]] * logs[i * classes + k];
    online::softmax(q, classes);
  }
  for (int e = 0; e < kPools; ++e) {
    for (int i = 0; i < n; ++i) pools[i] = kRate[e] * learnt.right[e * members + present[i]];
    online::softmax(pools.data(), n);
    double* q = mixed.data() + (kLinear + e) * classes;
    for (int i = 0; i < n; ++i)
      for (int k = 0; k < classes; ++k) q[k] += pools[i] * said[present[i] * classes + k];
  }
  double weights[kAll];
  share(learnt.good, kLastRate, weights, kAll);
  for (int k = 0; k < classes; ++k) answer[k] = 0.0;
  for (int e = 0; e < kAll; ++e)
    for (int k = 0; k < classes; ++k) answer[k] += weights[e] * mixed[e * classes + k];
}

// Learn from the label of the event that was answered last.
void learn(const Learnt& learnt, const double* said, int classes, int label) {
  const int n = static_cast<int>(present.size()), members = learnt.members;
  *learnt.events += 1.0;
  const double fading = 1.0 / std::sqrt(1.0 + *learnt.events / 100.0);
  const double rates[kLinear] = {0.1, 0.3, 0.3 * fading, fading};
  for (int e = 0; e < kLinear; ++e) {
    const double* q = mixed.data() + e * classes;
    for (int i = 0; i < n; ++i) {
      double mean = 0.0;
      for (int k = 0; k < classes; ++k) mean += q[k] * logs[i * classes + k];
      learnt.weights[e * members + present[i]] -= rates[e] / n * (mean - logs[i * classes + label]);
    }
  }
  for (int e = 0; e < kPools; ++e)
    for (int i = 0; i < n; ++i) {  // those that rest keep what they had
      double& right = learnt.right[e * members + present[i]];
      right = kMemory[e] * right + (online::largest(said + present[i] * classes, classes) == label ? 1.0 : 0.0);
    }
  for (int e = 0; e < kAll; ++e)
    learnt.good[e] = kLastMemory * learnt.good[e] + (online::largest(mixed.data() + e * classes, classes) == label ? 1.0 : 0.0);
}

}  // namespace

// Answer events one after the other, and learn those that have a label (0 or more).
//
// `said` (events, members, classes) and `there` (events, members) are what members say and whether they do; `answers` (events, classes) are
// 0 where no member does.
MAPSTO_API void mapsto_select_run(const Learnt* learnt, std::int64_t events, std::int32_t classes, const double* said,
                                  const std::uint8_t* there, const std::int32_t* labels, double* answers) {
  const int members = learnt->members;
  for (std::int64_t event = 0; event < events; ++event) {
    const double* own = said + event * members * classes;
    double* told = answers + event * classes;
    present.clear();
    for (int m = 0; m < members; ++m)
      if (there[event * members + m]) present.push_back(m);
    if (present.empty() || classes == 0) {
      for (int k = 0; k < classes; ++k) told[k] = 0.0;
      continue;
    }
    answer(*learnt, own, classes, told);
    if (labels[event] >= 0) learn(*learnt, own, classes, labels[event]);
  }
}
