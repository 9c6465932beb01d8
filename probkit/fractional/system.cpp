// A fractional system and its derivatives in the Hurst index and the reversion; see system.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

// a value, and its derivatives in the Hurst index and the reversion
struct Dual {
  double v = 0, h = 0, t = 0;
  Dual(double value = 0, double in_h = 0, double in_t = 0) : v(value), h(in_h), t(in_t) {}
};

Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.h + b.h, a.t + b.t}; }
Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.h - b.h, a.t - b.t}; }
Dual operator*(Dual a, Dual b) {
  return {a.v * b.v, a.h * b.v + a.v * b.h, a.t * b.v + a.v * b.t};
}
Dual operator/(Dual a, Dual b) {
  const double q = a.v / b.v;
  return {q, (a.h - q * b.h) / b.v, (a.t - q * b.t) / b.v};
}
Dual sqrt(Dual a) {
  const double root = std::sqrt(a.v);
  return {root, a.h / (2 * root), a.t / (2 * root)};
}

using Duals = std::vector<Dual>;

struct Table {
  int64_t K, terms;
  const double *rates, *coefficients;  // (K), (terms, K)
  double centre, radius;               // of the range of the Hurst index
};

Duals table_weights(const Table& table, Dual hurst) {
  const Dual x = (hurst - table.centre) / table.radius;
  Duals weights(table.K);
  Dual term = 1, next = x;
  for (int64_t n = 0; n < table.terms; ++n) {
    for (int64_t j = 0; j < table.K; ++j)
      weights[j] = weights[j] + term * table.coefficients[n * table.K + j];
    const Dual after = 2 * x * next - term;
    term = next;
    next = after;
  }
  return weights;
}

// what increments lack of their variance, faded in from H = .55 to .65
Dual slope_variance(const Table& table, const Duals& weights, Dual hurst, Dual variance) {
  Dual lacking = variance;
  for (int64_t j = 0; j < table.K; ++j) {
    Dual sum;
    for (int64_t l = 0; l < table.K; ++l)
      sum = sum + weights[l] / (table.rates[j] + table.rates[l]);
    lacking = lacking + weights[j] * sum * (2 * std::expm1(-table.rates[j]));
  }
  const Dual x = (hurst - 0.55) / 0.1;
  if (lacking.v < 0 || x.v <= 0) return 0;
  return x.v >= 1 ? lacking : lacking * x * x * (3 - 2 * x);
}

// rates and loadings of the level that reverts at the rate theta: modes, the shared one, two pairs
void revert(const Table& table, const Duals& weights, Dual theta, double close, Duals& rates,
            Duals& loadings) {
  Dual shared, half, weight;
  for (int64_t j = 0; j < table.K; ++j) {
    const Dual gap = table.rates[j] - theta;
    const bool coincide = std::abs(gap.v) < close * theta.v;
    rates.push_back(table.rates[j]);
    loadings.push_back(coincide ? Dual(0) : weights[j] * table.rates[j] / gap);
    if (coincide) {
      half = half + gap / 2;
      weight = weight + weights[j];
    } else {
      shared = shared - weights[j] * theta / gap;
    }
  }
  rates.push_back(theta);
  loadings.push_back(shared);
  const Dual middle = theta + half, d = close * middle, ratio = half / d;
  const Dual inner = (4 - ratio * ratio) / 3;
  const Dual near = weight * inner / (2 * d), far = weight * (1 - inner) / (4 * d);
  const Dual poles[] = {middle + d, middle - d, middle + 2 * d, middle - 2 * d};
  const Dual shares[] = {near, 0 - near, far, 0 - far};
  for (int64_t i = 0; i < 4; ++i) {
    rates.push_back(poles[i]);
    loadings.push_back(poles[i] * shares[i]);
  }
}

}  // namespace

// found (3, M + M + 1): rates, loadings and slope, and their derivatives; M is K without a
// reversion and K + 5 with one. variance: V_H and its derivative.
extern "C" void system_of(const Table* table, double hurst, int64_t reverts, double theta,
                          const double* variance, double close, double* found) {
  const Dual h(hurst, 1, 0), V(variance[0], variance[1], 0);
  const Duals law = table_weights(*table, h);
  Duals weights, rates, loadings;
  for (const Dual& w : law) weights.push_back(w / sqrt(V));
  Dual slope = 0;
  if (reverts) {
    revert(*table, weights, Dual(theta, 0, 1), close, rates, loadings);
  } else {
    slope = slope_variance(*table, law, h, V) / V;
    rates.assign(table->rates, table->rates + table->K);
    loadings = weights;
  }
  Duals all = rates;
  all.insert(all.end(), loadings.begin(), loadings.end());
  all.push_back(slope);
  const int64_t size = static_cast<int64_t>(all.size());
  for (int64_t i = 0; i < size; ++i) {
    found[i] = all[i].v;
    found[size + i] = all[i].h;
    found[2 * size + i] = all[i].t;
  }
}
