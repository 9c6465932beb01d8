// Filter of a level driven by modes with loadings of their own at every step, and its adjoint;
// see varying_filter.py for the recursion.
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

struct Problem {
  int64_t N, n, R;          // steps, modes, series
  const int64_t* gap;       // (N) index of each step's transition
  const uint8_t* observed;  // (N)
  const double *a, *Q, *u, *g, *y;  // (G, n), (G, n, n), (N, n), (N, n), (N, R)
  double r, keep;           // noise variance; 1 if the level goes on, 0 if it starts afresh
};

void times(const double* P, const double* x, double* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    double sum = 0;
    for (int64_t k = 0; k < n; ++k) sum += P[j * n + k] * x[k];
    y[j] = sum;
  }
}

double dot(const double* x, const double* y, int64_t n) {
  double sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += x[j] * y[j];
  return sum;
}

// P u, Q g, and the predicted covariance of modes and level (c1) and variance of the level
double predict(const Problem& p, int64_t i, const double* P, const double* c, double level,
               double* Pu, double* Qg, double* c1) {
  const int64_t n = p.n;
  const double *a = p.a + p.gap[i] * n, *Q = p.Q + p.gap[i] * n * n;
  const double *u = p.u + i * n, *g = p.g + i * n;
  times(P, u, Pu, n);
  times(Q, g, Qg, n);
  for (int64_t j = 0; j < n; ++j) c1[j] = a[j] * (Pu[j] + p.keep * c[j]) + Qg[j];
  return dot(u, Pu, n) + 2 * p.keep * dot(u, c, n) + p.keep * level + dot(g, Qg, n);
}

}  // namespace

// Runs the filter from the first moments given in row 0 of means (N + 1, R, n), levels (N + 1, R),
// P (N + 1, n, n), c (N + 1, n) and variance (N + 1), all of which are kept.
// Returns 0, or the number of the first step whose variance is not positive, plus one.
extern "C" int64_t varying_forward(const Problem* problem, double* means, double* levels,
                                   double* Ps, double* cs, double* variances,
                                   double* log_variance, double* quadratic) {
  const Problem& p = *problem;
  const int64_t n = p.n;
  std::vector<double> Pu(n), Qg(n);
  for (int64_t i = 0; i < p.N; ++i) {
    const double *a = p.a + p.gap[i] * n, *Q = p.Q + p.gap[i] * n * n, *u = p.u + i * n;
    const double *P = Ps + i * n * n, *c = cs + i * n;
    double *P1 = Ps + (i + 1) * n * n, *c1 = cs + (i + 1) * n;
    const double p1 = predict(p, i, P, c, variances[i], Pu.data(), Qg.data(), c1);
    const double S = p1 + p.r;
    const bool seen = p.observed[i];
    if (seen && !(S > 0)) return i + 1;
    if (seen) *log_variance += std::log(S);
    for (int64_t s = 0; s < p.R; ++s) {
      const double* m = means + (i * p.R + s) * n;
      double* m1 = means + ((i + 1) * p.R + s) * n;
      const double x1 = p.keep * levels[i * p.R + s] + dot(u, m, n);
      const double v = seen ? p.y[i * p.R + s] - x1 : 0.0;
      if (seen) quadratic[s] += v * v / S;
      const double gain = seen ? v / S : 0.0;
      for (int64_t j = 0; j < n; ++j) m1[j] = a[j] * m[j] + c1[j] * gain;
      levels[(i + 1) * p.R + s] = x1 + p1 * gain;
    }
    const double share = seen ? 1 / S : 0.0;
    for (int64_t j = 0; j < n; ++j) {
      const double scaled = c1[j] * share;
      for (int64_t k = 0; k < n; ++k)
        P1[j * n + k] = P[j * n + k] * a[j] * a[k] + Q[j * n + k] - scaled * c1[k];
    }
    const double left = seen ? p.r / S : 1.0;
    for (int64_t j = 0; j < n; ++j) c1[j] *= left;
    variances[i + 1] = p1 * left;
  }
  return 0;
}

// Derivatives of  g_log * log_variance + sum_s g_quadratic[s] * quadratic[s]  in the loadings u and
// g, in the noise variance r, and in the level's first variance.
extern "C" void varying_backward(const Problem* problem, const double* means, const double* levels,
                                 const double* Ps, const double* cs, const double* variances,
                                 double g_log, const double* g_quadratic, double* du, double* dg,
                                 double* dr, double* dfirst) {
  const Problem& p = *problem;
  const int64_t n = p.n;
  std::vector<double> Pu(n), Qg(n), c1(n), bP(n * n), bc(n), bm(p.R * n), bx(p.R), d(n), e(n);
  std::vector<double> Pe(n), Qd(n);
  double bp = 0;  // bars: derivatives in the moments after step i
  for (int64_t i = p.N - 1; i >= 0; --i) {
    const double *a = p.a + p.gap[i] * n, *Q = p.Q + p.gap[i] * n * n;
    const double *u = p.u + i * n, *g = p.g + i * n;
    const double *P = Ps + i * n * n, *c = cs + i * n;
    const double p1 = predict(p, i, P, c, variances[i], Pu.data(), Qg.data(), c1.data());
    d = bc;
    double s = bp;
    if (p.observed[i]) {
      const double S = p1 + p.r, along = dot(bc.data(), c1.data(), n);
      times(bP.data(), c1.data(), d.data(), n);
      double bS = dot(c1.data(), d.data(), n) / (S * S) + g_log / S
          - (along + bp * p1) * p.r / (S * S);
      for (int64_t j = 0; j < n; ++j) d[j] = -2 * d[j] / S + bc[j] * p.r / S;
      s = bp * p.r / S;
      *dr += (along + bp * p1) / S;
      for (int64_t q = 0; q < p.R; ++q) {
        double* g_mean = bm.data() + q * n;
        const double v = p.y[i * p.R + q] - p.keep * levels[i * p.R + q]
            - dot(u, means + (i * p.R + q) * n, n);
        const double through = dot(g_mean, c1.data(), n) + bx[q] * p1;
        bS -= through * v / (S * S) + g_quadratic[q] * v * v / (S * S);
        s += bx[q] * v / S;
        for (int64_t j = 0; j < n; ++j) d[j] += g_mean[j] * v / S;
        bx[q] -= through / S + 2 * g_quadratic[q] * v / S;
      }
      s += bS;
      *dr += bS;
    }
    // d, s, bx: derivatives in the predicted c, variance and levels
    for (int64_t j = 0; j < n; ++j) e[j] = a[j] * d[j];
    times(P, e.data(), Pe.data(), n);
    times(Q, d.data(), Qd.data(), n);
    double *u_bar = du + i * n, *g_bar = dg + i * n;
    for (int64_t j = 0; j < n; ++j) {
      u_bar[j] += Pe[j] + 2 * s * (Pu[j] + p.keep * c[j]);
      g_bar[j] += Qd[j] + 2 * s * Qg[j];
    }
    for (int64_t q = 0; q < p.R; ++q) {
      const double* m = means + (i * p.R + q) * n;
      double* g_mean = bm.data() + q * n;
      for (int64_t j = 0; j < n; ++j) {
        u_bar[j] += bx[q] * m[j];
        g_mean[j] = a[j] * g_mean[j] + bx[q] * u[j];
      }
      bx[q] *= p.keep;
    }
    for (int64_t j = 0; j < n; ++j)
      for (int64_t k = 0; k < n; ++k)
        bP[j * n + k] = bP[j * n + k] * a[j] * a[k] + 0.5 * (e[j] * u[k] + u[j] * e[k])
            + s * u[j] * u[k];
    for (int64_t j = 0; j < n; ++j) bc[j] = p.keep * (e[j] + 2 * s * u[j]);
    bp = p.keep * s;
  }
  *dfirst += bp;
}
