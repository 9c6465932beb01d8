// Forward filter of many series under many parameters; see batch_filter.py for the layout.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int64_t W = 8;
#else
constexpr int64_t W = 4;
#endif
constexpr int64_t kChunk = 32;  // steps whose gains stay in the first cache
constexpr int64_t kSeries = 8;  // series that hide each other's latencies

constexpr int64_t kStatic = 2;  // the last states: offset and slope

// one number for each of W parameters
typedef double Lanes __attribute__((vector_size(W * sizeof(double))));

struct Problem {
  int64_t N, n, R, G, D;    // steps, states, series, parameters, distinct gaps
  int64_t increments;
  const int64_t* gap;       // (N) index of each step's gap
  const uint8_t* observed;  // (N)
  const double *gaps, *seen, *y;  // (D), (N), (N, R)
  const double *rates, *C, *noise, *mean, *P;  // (n, G), (n, G), (G), (R, n, G), (n, n, G)
};

Lanes fill(double x) { return Lanes{} + x; }

// everything of one block of W parameters
struct Block {
  const Problem& p;
  int64_t first;
  std::vector<Lanes> rates, C, total, a, moved, b, Q, P, means, quadratic;  // Q, P: lower halves
  std::vector<Lanes> gain, inverse;  // of a chunk: k / S (kChunk, n) and 1 / S (kChunk)
  std::vector<Lanes> Pb, QC, k;
  Lanes noise, own, log_variance;
  int64_t current = -1;

  Block(const Problem& problem, int64_t start) : p(problem), first(start) {
    const int64_t n = p.n, half = n * (n + 1) / 2;
    rates.resize(n); C.resize(n); total.resize(half); Q.resize(half); P.resize(half);
    a.resize(p.D * n); moved.resize(p.D * n); b.resize(p.D * n);
    means.resize(p.R * n); quadratic.assign(p.R, Lanes{});
    gain.resize(kChunk * n); inverse.resize(kChunk);
    Pb.resize(n); QC.resize(n); k.resize(n);
    noise = load(p.noise); log_variance = Lanes{};
    for (int64_t j = 0; j < n; ++j) { rates[j] = load(p.rates + j * p.G); C[j] = load(p.C + j * p.G); }
    for (int64_t j = 0, i = 0; j < n; ++j)
      for (int64_t l = 0; l <= j; ++l, ++i) {
        P[i] = load(p.P + (j * n + l) * p.G);
        for (int64_t w = 0; w < W; ++w) {
          const double sum = rates[j][w] + rates[l][w];
          total[i][w] = j < n - kStatic ? 1 / sum : 0;  // static states have no noise
        }
      }
    for (int64_t i = 0; i < p.R * n; ++i) means[i] = load(p.mean + i * p.G);
    for (int64_t d = 0; d < p.D; ++d)
      for (int64_t j = 0; j < n; ++j) {
        Lanes e;
        for (int64_t w = 0; w < W; ++w) e[w] = std::expm1(-rates[j][w] * p.gaps[d]);
        moved[d * n + j] = e;
        a[d * n + j] = e + 1.0;
        b[d * n + j] = (p.increments ? e : e + 1.0) * C[j];
      }
  }

  // past the last parameter, the last one again
  Lanes load(const double* from) const {
    Lanes x;
    for (int64_t w = 0; w < W; ++w) x[w] = from[std::min(first + w, p.G - 1)];
    return x;
  }

  // noise of a step: 1 - a_j a_l without cancellation
  void choose(int64_t d) {
    if (d == current) return;
    current = d;
    const Lanes* e = moved.data() + d * p.n;
    std::fill(QC.begin(), QC.end(), Lanes{});
    for (int64_t j = 0, i = 0; j < p.n; ++j)
      for (int64_t l = 0; l <= j; ++l, ++i) {
        Q[i] = -(e[j] + e[l] + e[j] * e[l]) * total[i];
        QC[j] += Q[i] * C[l];
        if (l < j) QC[l] += Q[i] * C[j];
      }
    own = noise;
    for (int64_t j = 0; j < p.n; ++j) own += QC[j] * C[j];
  }

  // variances and gains of steps begin ... end; the first step whose variance is not positive, plus
  // one, or 0
  int64_t variances(int64_t begin, int64_t end) {
    const int64_t n = p.n;
    for (int64_t t = begin; t < end; ++t) {
      choose(p.gap[t]);
      const Lanes *at = a.data() + current * n, *bt = b.data() + current * n;
      if (!p.observed[t]) {
        for (int64_t j = 0, i = 0; j < n; ++j)
          for (int64_t l = 0; l <= j; ++l, ++i) P[i] = P[i] * (at[j] * at[l]) + Q[i];
        continue;
      }
      const Lanes seen = fill(p.seen[t]);
      for (int64_t j = 0, i = 0; j < n; ++j) {
        const Lanes bj = j == n - 1 ? seen : bt[j];
        Lanes sum = Lanes{};
        for (int64_t l = 0; l < j; ++l, ++i) {
          sum += P[i] * bt[l];
          Pb[l] += P[i] * bj;
        }
        Pb[j] = sum + P[i++] * bj;
      }
      Lanes S = own + Pb[n - 1] * seen;
      for (int64_t j = 0; j < n - 1; ++j) S += Pb[j] * bt[j];
      for (int64_t w = 0; w < W; ++w) {
        if (!(S[w] > 0)) return t + 1;
        log_variance[w] += std::log(S[w]);
      }
      const Lanes over = 1.0 / S;
      Lanes* g = gain.data() + (t - begin) * n;
      inverse[t - begin] = over;
      for (int64_t j = 0; j < n; ++j) { k[j] = at[j] * Pb[j] + QC[j]; g[j] = k[j] * over; }
      for (int64_t j = 0, i = 0; j < n; ++j)
        for (int64_t l = 0; l <= j; ++l, ++i)
          P[i] = P[i] * (at[j] * at[l]) + Q[i] - k[j] * g[l];
    }
    return 0;
  }

  // means of `num` series from `s` on through the same steps
  template <int64_t num>
  void advance(int64_t s, int64_t begin, int64_t end) {
    const int64_t n = p.n;
    Lanes* m = means.data() + s * n;
    for (int64_t t = begin; t < end; ++t) {
      const Lanes *at = a.data() + p.gap[t] * n, *bt = b.data() + p.gap[t] * n;
      if (!p.observed[t]) {
        for (int64_t j = 0; j < n; ++j)
          for (int64_t r = 0; r < num; ++r) m[r * n + j] *= at[j];
        continue;
      }
      const Lanes* g = gain.data() + (t - begin) * n;
      Lanes v[num];
      for (int64_t r = 0; r < num; ++r)
        v[r] = p.y[t * p.R + s + r] - p.seen[t] * m[r * n + n - 1];
      for (int64_t j = 0; j < n - 1; ++j)
        for (int64_t r = 0; r < num; ++r) v[r] -= bt[j] * m[r * n + j];
      for (int64_t r = 0; r < num; ++r) quadratic[s + r] += v[r] * v[r] * inverse[t - begin];
      for (int64_t j = 0; j < n; ++j)
        for (int64_t r = 0; r < num; ++r) m[r * n + j] = m[r * n + j] * at[j] + g[j] * v[r];
    }
  }

  int64_t run() {
    for (int64_t begin = 0; begin < p.N; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, p.N);
      const int64_t failed = variances(begin, end);
      if (failed) return failed;
      int64_t s = 0;
      for (; s + kSeries <= p.R; s += kSeries) advance<kSeries>(s, begin, end);
      for (; s < p.R; ++s) advance<1>(s, begin, end);
    }
    return 0;
  }
};

}  // namespace

// log_variance (G), quadratic (R, G), and the last state's mean (R, n, G) and covariance (n, n, G).
// Returns 0, or the number of the first step whose variance is not positive, plus one.
extern "C" int64_t batch(const Problem* problem, double* log_variance, double* quadratic,
                         double* mean, double* P) {
  const Problem& p = *problem;
  const int64_t n = p.n;
  for (int64_t first = 0; first < p.G; first += W) {
    Block block(p, first);
    const int64_t failed = block.run();
    if (failed) return failed;
    for (int64_t w = 0; w < std::min(W, p.G - first); ++w) {
      const int64_t g = first + w;
      log_variance[g] = block.log_variance[w];
      for (int64_t s = 0; s < p.R; ++s) quadratic[s * p.G + g] = block.quadratic[s][w];
      for (int64_t i = 0; i < p.R * n; ++i) mean[i * p.G + g] = block.means[i][w];
      for (int64_t j = 0, i = 0; j < n; ++j)
        for (int64_t l = 0; l <= j; ++l, ++i)
          P[(j * n + l) * p.G + g] = P[(l * n + j) * p.G + g] = block.P[i][w];
    }
  }
  return 0;
}
