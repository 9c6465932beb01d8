// Filter of noisy fractional series and its adjoint; see native_filter.py for the recursion.
//
// Rows of n numbers are padded with zeros to whole registers. Products with symmetric matrices are
// sums of rows, so that no sum runs across a register but those of the final scalars.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

#ifdef __AVX512F__
constexpr int64_t W = 8;
#else
constexpr int64_t W = 4;
#endif
constexpr int64_t kStatic = 2;    // the last states: offset and slope
constexpr int64_t kSegment = 32;  // steps from a state that is kept to the next

typedef double Lanes __attribute__((vector_size(W * sizeof(double))));

struct Problem {
  int64_t N, M, R, G;       // steps, modes, series, distinct gaps
  int64_t increments;
  const int64_t* gap;       // (N) index of each step's gap
  const uint8_t* observed;  // (N)
  const double *gaps, *seen, *first, *y;  // (G), (N), (R), (R, N)
  const double *rates, *loadings;         // (M), (M)
  double slope, noise;
};

Lanes fill(double x) { return Lanes{} + x; }

// V registers a row; 0 is a number that is not known when compiling
template <int64_t V>
struct Filter {
  const Problem& p;
  const int64_t n, wide;                     // states; registers of a row
  std::vector<Lanes> a, Q, QC, b, C;         // of every gap, and the loadings
  std::vector<Lanes> Pb, k, gain;            // of a step
  std::vector<Lanes> ms, Ps;                 // means and covariances of a segment
  std::vector<double> own, inverse, loaded;  // C'QC + r; 1 / (g_j + g_l); their products with C

  explicit Filter(const Problem& problem)
      : p(problem), n(p.M + kStatic), wide((n + W - 1) / W),
        a(p.G * wide), Q(p.G * n * wide), QC(p.G * wide), b(p.G * wide), C(wide), Pb(wide), k(wide),
        gain(wide), own(p.G), inverse(p.M * p.M), loaded(p.M) {
    double* c = numbers(C.data());
    for (int64_t j = 0; j < p.M; ++j) c[j] = p.loadings[j];
    c[p.M] = p.increments ? 0 : 1;  // that of the slope is the time, which comes with the step
    for (int64_t j = 0; j < p.M; ++j)
      for (int64_t l = 0; l < p.M; ++l) {
        inverse[j * p.M + l] = 1 / (p.rates[j] + p.rates[l]);
        loaded[j] += inverse[j * p.M + l] * p.loadings[l];
      }
    std::vector<double> e(n);
    for (int64_t d = 0; d < p.G; ++d) {
      double *at = numbers(&a[d * row()]), *bt = numbers(&b[d * row()]);
      double *Qt = numbers(&Q[d * n * row()]), *QCt = numbers(&QC[d * row()]);
      own[d] = p.noise;
      for (int64_t j = 0; j < n; ++j) {
        e[j] = j < p.M ? std::expm1(-p.rates[j] * p.gaps[d]) : 0;
        at[j] = e[j] + 1;
        bt[j] = (p.increments ? e[j] : at[j]) * c[j];
      }
      for (int64_t j = 0; j < p.M; ++j) {
        for (int64_t l = 0; l < p.M; ++l) {
          // 1 - a_j a_l without cancellation
          const double q = -(e[j] + e[l] + e[j] * e[l]) * inverse[j * p.M + l];
          Qt[j * row() * W + l] = q;
          QCt[j] += q * c[l];
        }
        own[d] += QCt[j] * c[j];
      }
    }
  }

  int64_t row() const { return V ? V : wide; }
  static double* numbers(Lanes* x) { return reinterpret_cast<double*>(x); }
  static const double* numbers(const Lanes* x) { return reinterpret_cast<const double*>(x); }

  double dot(const Lanes* x, const Lanes* y) const {
    Lanes total = Lanes{};
    for (int64_t v = 0; v < row(); ++v) total += x[v] * y[v];
    double sum = 0;
    for (int64_t w = 0; w < W; ++w) sum += total[w];
    return sum;
  }

  // to += A x for a symmetric A
  void add_product(const Lanes* A, const Lanes* x, Lanes* to) const {
    Lanes sums[V ? V : 1];
    if (!V) {
      for (int64_t j = 0; j < n; ++j)
        for (int64_t v = 0; v < wide; ++v) to[v] += A[j * wide + v] * numbers(x)[j];
      return;
    }
    for (int64_t v = 0; v < V; ++v) sums[v] = to[v];
    for (int64_t j = 0; j < n; ++j) {
      const Lanes factor = fill(numbers(x)[j]);
      for (int64_t v = 0; v < V; ++v) sums[v] += A[j * V + v] * factor;
    }
    for (int64_t v = 0; v < V; ++v) to[v] = sums[v];
  }

  // the law of the first state
  void start(Lanes* means, Lanes* P) const {
    std::fill(means, means + p.R * row(), Lanes{});
    std::fill(P, P + n * row(), Lanes{});
    for (int64_t s = 0; s < p.R; ++s) numbers(means + s * row())[p.M] = p.first[s];
    auto at = [&](int64_t j, int64_t l) -> double& { return numbers(P)[j * row() * W + l]; };
    for (int64_t j = 0; j < p.M; ++j)
      for (int64_t l = 0; l < p.M; ++l) at(j, l) = inverse[j * p.M + l];
    at(n - 1, n - 1) = p.slope;
    if (p.increments) return;
    at(p.M, p.M) = p.noise;
    for (int64_t j = 0; j < p.M; ++j) {
      at(j, p.M) = at(p.M, j) = -loaded[j];
      at(p.M, p.M) += p.loadings[j] * loaded[j];
    }
  }

  // loadings of the step's observation: sets the last of b, then Pb and k, and returns S
  double observe(int64_t i, const Lanes* P) {
    const int64_t d = p.gap[i];
    Lanes* bt = &b[d * row()];
    numbers(bt)[n - 1] = p.seen[i];
    std::fill(Pb.begin(), Pb.end(), Lanes{});
    add_product(P, bt, Pb.data());
    for (int64_t v = 0; v < row(); ++v) k[v] = a[d * row() + v] * Pb[v] + QC[d * row() + v];
    return dot(bt, Pb.data()) + own[d];
  }

  int64_t segments() const { return (p.N + kSegment - 1) / kSegment; }

  // from the kept state of segment c through its steps, into ms and Ps. Adds to the sums; 0, or the
  // number of the first step whose variance is not positive, plus one
  int64_t replay(int64_t c, const Lanes* means, const Lanes* covariances, double* log_variance,
                 double* quadratic) {
    const int64_t first = c * kSegment, last = std::min(first + kSegment, p.N);
    const int64_t of_means = p.R * row(), of_P = n * row();
    ms.resize((kSegment + 1) * of_means);
    Ps.resize((kSegment + 1) * of_P);
    std::copy_n(means + c * of_means, of_means, ms.begin());
    std::copy_n(covariances + c * of_P, of_P, Ps.begin());
    for (int64_t i = first; i < last; ++i) {
      const int64_t d = p.gap[i];
      const bool observed = p.observed[i];
      const Lanes *at = &a[d * row()], *bt = &b[d * row()], *Qt = &Q[d * n * row()];
      const Lanes *m = &ms[(i - first) * of_means], *P = &Ps[(i - first) * of_P];
      Lanes *m1 = &ms[(i - first + 1) * of_means], *P1 = &Ps[(i - first + 1) * of_P];
      double S = 1;
      if (observed) {
        S = observe(i, P);
        if (!(S > 0)) return i + 1;
        *log_variance += std::log(S);
      }
      // without an observation a gain of zero
      for (int64_t v = 0; v < row(); ++v) gain[v] = observed ? k[v] / S : Lanes{};
      for (int64_t j = 0; j < n; ++j) {
        const Lanes aj = fill(numbers(at)[j]), kj = fill(observed ? numbers(k.data())[j] : 0.0);
        for (int64_t v = 0; v < row(); ++v) {
          const int64_t l = j * row() + v;
          P1[l] = P[l] * (aj * at[v]) + Qt[l] - kj * gain[v];
        }
      }
      for (int64_t s = 0; s < p.R; ++s, m += row(), m1 += row()) {
        const double innovation = observed ? p.y[s * p.N + i] - dot(bt, m) : 0.0;
        quadratic[s] += innovation * innovation / S;
        for (int64_t v = 0; v < row(); ++v) m1[v] = m[v] * at[v] + gain[v] * innovation;
      }
    }
    return 0;
  }

  int64_t forward(Lanes* means, Lanes* covariances, double* log_variance, double* quadratic) {
    const int64_t of_means = p.R * row(), of_P = n * row();
    start(means, covariances);
    for (int64_t c = 0; c < segments(); ++c) {
      const int64_t failed = replay(c, means, covariances, log_variance, quadratic);
      if (failed || c + 1 == segments()) return failed;
      std::copy_n(&ms[kSegment * of_means], of_means, means + (c + 1) * of_means);
      std::copy_n(&Ps[kSegment * of_P], of_P, covariances + (c + 1) * of_P);
    }
    return 0;
  }

  void backward(const Lanes* means, const Lanes* covariances, double g_log,
                const double* g_quadratic, double* drates, double* dloadings, double* dslope,
                double* dnoise) {
    std::vector<Lanes> da(p.G * row()), dQ(p.G * n * row()), dQC(p.G * row()), dC(row());
    std::vector<Lanes> dP(n * row()), old(n * row()), dm(p.R * row());
    std::vector<Lanes> db(row()), dPb(row()), dk(row());
    std::vector<double> down(p.G), unused(p.R + 1);
    for (int64_t i = p.N - 1; i >= 0; --i) {
      const int64_t d = p.gap[i], since = i % kSegment;
      if (i == p.N - 1 || since == kSegment - 1)
        replay(i / kSegment, means, covariances, &unused[0], &unused[1]);
      const Lanes *at = &a[d * row()], *bt = &b[d * row()];
      const Lanes *m = &ms[since * p.R * row()], *P = &Ps[since * n * row()];
      Lanes *ga = &da[d * row()], *gQ = &dQ[d * n * row()];
      std::swap(dP, old);  // symmetric throughout
      for (int64_t l = 0; l < n * row(); ++l) gQ[l] += old[l];
      for (int64_t j = 0; j < n; ++j) {
        const Lanes aj = fill(numbers(at)[j]);
        for (int64_t v = 0; v < row(); ++v) {
          const Lanes moved = old[j * row() + v] * aj;
          ga[v] += 2.0 * moved * P[j * row() + v];
          dP[j * row() + v] = moved * at[v];
        }
      }
      if (!p.observed[i]) {
        for (int64_t s = 0; s < p.R; ++s)
          for (int64_t v = 0; v < row(); ++v) {
            ga[v] += dm[s * row() + v] * m[s * row() + v];
            dm[s * row() + v] *= at[v];
          }
        continue;
      }
      const double S = observe(i, P);
      std::fill(dk.begin(), dk.end(), Lanes{});
      std::fill(db.begin(), db.end(), Lanes{});
      add_product(old.data(), k.data(), dk.data());
      double dS = g_log / S + dot(k.data(), dk.data()) / (S * S);
      for (int64_t v = 0; v < row(); ++v) dk[v] *= -2 / S;
      for (int64_t s = 0; s < p.R; ++s) {
        Lanes* g = &dm[s * row()];
        const Lanes* x = m + s * row();
        const double gain = (p.y[s * p.N + i] - dot(bt, x)) / S, along = dot(g, k.data()) / S;
        const double dv = along + 2 * g_quadratic[s] * gain;
        dS -= gain * (along + g_quadratic[s] * gain);
        for (int64_t v = 0; v < row(); ++v) {
          dk[v] += g[v] * gain;
          ga[v] += g[v] * x[v];
          g[v] = g[v] * at[v] - dv * bt[v];
          db[v] -= dv * x[v];
        }
      }
      for (int64_t v = 0; v < row(); ++v) {
        ga[v] += dk[v] * Pb[v];
        dPb[v] = at[v] * dk[v] + dS * bt[v];
        db[v] += dS * Pb[v];
        dQC[d * row() + v] += dk[v];
      }
      down[d] += dS;
      add_product(P, dPb.data(), db.data());
      for (int64_t j = 0; j < n; ++j) {
        const Lanes one = fill(0.5 * numbers(dPb.data())[j]), other = fill(0.5 * numbers(bt)[j]);
        for (int64_t v = 0; v < row(); ++v)
          dP[j * row() + v] += one * bt[v] + other * dPb[v];
      }
      for (int64_t v = 0; v < row(); ++v) {
        dC[v] += db[v] * (p.increments ? at[v] - 1.0 : at[v]);
        ga[v] += db[v] * C[v];  // the slope's is zero: its loading is the time
      }
    }
    for (int64_t j = 0; j < p.M; ++j) dloadings[j] += numbers(dC.data())[j];
    for (int64_t d = 0; d < p.G; ++d) {
      *dnoise += down[d];
      through_step(d, &da[d * row()], &dQ[d * n * row()], &dQC[d * row()], down[d], drates,
                   dloadings);
    }
    through_start(numbers(dP.data()), drates, dloadings, dslope, dnoise);
  }

  // from transition and noise over a gap to rates and loadings; dQC is without the part of own
  void through_step(int64_t d, const Lanes* da, const Lanes* dQ, const Lanes* dQC, double down,
                    double* drates, double* dloadings) const {
    const double *at = numbers(&a[d * row()]), *Qt = numbers(&Q[d * n * row()]), h = p.gaps[d];
    std::vector<double> gQC(p.M);
    for (int64_t j = 0; j < p.M; ++j) {
      gQC[j] = numbers(dQC)[j] + down * p.loadings[j];
      dloadings[j] += down * numbers(&QC[d * row()])[j];
      drates[j] -= h * at[j] * numbers(da)[j];
    }
    for (int64_t j = 0; j < p.M; ++j)
      for (int64_t l = 0; l < p.M; ++l) {
        const int64_t at_jl = j * row() * W + l;
        const double g = numbers(dQ)[at_jl] + gQC[j] * p.loadings[l];
        const double through = g * (h * at[j] * at[l] - Qt[at_jl]) * inverse[j * p.M + l];
        drates[j] += through;
        drates[l] += through;
        dloadings[l] += Qt[at_jl] * gQC[j];
      }
  }

  void through_start(const double* dP, double* drates, double* dloadings, double* dslope,
                     double* dnoise) const {
    auto at = [&](int64_t j, int64_t l) { return dP[j * row() * W + l]; };
    *dslope += at(n - 1, n - 1);
    const double offset = p.increments ? 0.0 : at(p.M, p.M);
    *dnoise += offset;
    for (int64_t j = 0; j < p.M; ++j) {
      double dloaded = 0;
      if (!p.increments) dloaded = offset * p.loadings[j] - 2 * at(j, p.M);
      dloadings[j] += offset * loaded[j];
      for (int64_t l = 0; l < p.M; ++l) {
        const double s = inverse[j * p.M + l];
        const double through = (at(j, l) + dloaded * p.loadings[l]) * s * s;
        dloadings[l] += dloaded * s;
        drates[j] -= through;
        drates[l] -= through;
      }
    }
  }
};

// registers of a row with that many modes
constexpr int64_t registers(int64_t modes) { return (modes + kStatic + W - 1) / W; }

// runs `job` with the filter of the right width: of the tables, also with the five modes of a
// reversion, or any
template <typename Job>
auto with_filter(const Problem& p, Job job) {
  constexpr int64_t plain = registers(8), reverting = registers(13);
  if (registers(p.M) == plain) {
    Filter<plain> filter(p);
    return job(filter);
  }
  if (registers(p.M) == reverting) {
    Filter<reverting> filter(p);
    return job(filter);
  }
  Filter<0> filter(p);
  return job(filter);
}

}  // namespace

// numbers in a padded row
extern "C" int64_t padded(int64_t modes) { return registers(modes) * W; }

// states that are kept of N steps
extern "C" int64_t kept(int64_t steps) { return (steps + kSegment - 1) / kSegment; }

// runs the filter and keeps means (kept, R, padded) and covariances (kept, n, padded). Adds to the
// sums. Returns 0, or the number of the first step whose variance is not positive, plus one.
extern "C" int64_t forward(const Problem* problem, double* means, double* covariances,
                           double* log_variance, double* quadratic) {
  return with_filter(*problem, [&](auto& filter) {
    return filter.forward(reinterpret_cast<Lanes*>(means), reinterpret_cast<Lanes*>(covariances),
                          log_variance, quadratic);
  });
}

// adds to the derivatives of  g_log * log_variance + sum_s g_quadratic[s] * quadratic[s]
extern "C" void backward(const Problem* problem, const double* means, const double* covariances,
                         double g_log, const double* g_quadratic, double* drates,
                         double* dloadings, double* dslope, double* dnoise) {
  with_filter(*problem, [&](auto& filter) {
    filter.backward(reinterpret_cast<const Lanes*>(means),
                    reinterpret_cast<const Lanes*>(covariances), g_log, g_quadratic, drates,
                    dloadings, dslope, dnoise);
  });
}
