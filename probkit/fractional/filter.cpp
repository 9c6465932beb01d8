// Filter of noisy fractional series and its adjoint; see native_filter.py for the recursion.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct Problem {
  int64_t N, n, R, shared;  // steps, states, series; whether all steps share their loadings
  int64_t increments;
  const int64_t* gap;       // (N) index of each step's transition
  const uint8_t* observed;  // (N)
  const double *a, *Q, *C, *seen, *y;  // (G, n), (G, n, n), (1 or N, n), (N), (N, R)
  double r;
};

// b and QC of a step, and C'QC
double observe(const Problem& p, int64_t i, double* b, double* QC) {
  const int64_t n = p.n;
  const double *a = p.a + p.gap[i] * n, *Q = p.Q + p.gap[i] * n * n;
  const double* C = p.C + (p.shared ? 0 : i * n);
  double total = 0;
  for (int64_t j = 0; j < n; ++j) {
    b[j] = (a[j] - (p.increments ? 1.0 : 0.0)) * C[j];
    double sum = 0;
    for (int64_t k = 0; k < n; ++k) sum += Q[j * n + k] * C[k];
    QC[j] = sum;
    total += sum * C[j];
  }
  b[n - 1] = p.seen[i];
  return total;
}

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

}  // namespace

// runs the filter; means (N + 1, R, n) and covariances (N + 1, n, n) are kept, the first being given.
// Returns 0, or the number of the first step whose variance is not positive, plus one.
extern "C" int64_t forward(const Problem* problem, double* means, double* covariances,
                           double* log_variance, double* quadratic) {
  const Problem& p = *problem;
  const int64_t n = p.n;
  std::vector<double> b(n), QC(n), Pb(n), k(n);
  for (int64_t i = 0; i < p.N; ++i) {
    const double *a = p.a + p.gap[i] * n, *Q = p.Q + p.gap[i] * n * n;
    const double *m = means + i * p.R * n, *P = covariances + i * n * n;
    double *m1 = means + (i + 1) * p.R * n, *P1 = covariances + (i + 1) * n * n;
    double S = 1;
    if (p.observed[i]) {
      const double own = observe(p, i, b.data(), QC.data());
      times(P, b.data(), Pb.data(), n);
      S = dot(b.data(), Pb.data(), n) + own + p.r;
      if (!(S > 0)) return i + 1;
      *log_variance += std::log(S);
      for (int64_t j = 0; j < n; ++j) k[j] = a[j] * Pb[j] + QC[j];
    }
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < n; ++l)
        P1[j * n + l] = P[j * n + l] * a[j] * a[l] + Q[j * n + l]
            - (p.observed[i] ? k[j] * k[l] / S : 0.0);
    for (int64_t s = 0; s < p.R; ++s) {
      double gain = 0;
      if (p.observed[i]) {
        const double v = p.y[i * p.R + s] - dot(b.data(), m + s * n, n);
        quadratic[s] += v * v / S;
        gain = v / S;
      }
      for (int64_t j = 0; j < n; ++j)
        m1[s * n + j] = m[s * n + j] * a[j] + (p.observed[i] ? k[j] * gain : 0.0);
    }
  }
  return 0;
}

// adds to the derivatives of  g_log * log_variance + sum_s g_quadratic[s] * quadratic[s]
extern "C" void backward(const Problem* problem, const double* means, const double* covariances,
                         double g_log, const double* g_quadratic, double* da, double* dQ,
                         double* dC, double* dseen, double* dr, double* dm, double* dP) {
  const Problem& p = *problem;
  const int64_t n = p.n;
  std::vector<double> b(n), QC(n), Pb(n), k(n), db(n), dQC(n), dPb(n), dk(n), dv(p.R), v(p.R);
  std::vector<double> old(n * n);
  for (int64_t i = p.N - 1; i >= 0; --i) {
    const double* a = p.a + p.gap[i] * n;
    const double* Q = p.Q + p.gap[i] * n * n;
    const double* C = p.C + (p.shared ? 0 : i * n);
    const double *m = means + i * p.R * n, *P = covariances + i * n * n;
    double *ga = da + p.gap[i] * n, *gQ = dQ + p.gap[i] * n * n;
    double* gC = dC + (p.shared ? 0 : i * n);
    std::memcpy(old.data(), dP, n * n * sizeof(double));  // symmetric throughout
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < n; ++l) {
        gQ[j * n + l] += old[j * n + l];
        ga[j] += 2 * old[j * n + l] * P[j * n + l] * a[l];
        dP[j * n + l] = old[j * n + l] * a[j] * a[l];
      }
    if (!p.observed[i]) {
      for (int64_t s = 0; s < p.R; ++s)
        for (int64_t j = 0; j < n; ++j) {
          ga[j] += dm[s * n + j] * m[s * n + j];
          dm[s * n + j] *= a[j];
        }
      continue;
    }
    const double own = observe(p, i, b.data(), QC.data());
    times(P, b.data(), Pb.data(), n);
    const double S = dot(b.data(), Pb.data(), n) + own + p.r;
    for (int64_t j = 0; j < n; ++j) k[j] = a[j] * Pb[j] + QC[j];
    times(old.data(), k.data(), dk.data(), n);
    double dS = g_log / S + dot(k.data(), dk.data(), n) / (S * S);
    for (int64_t j = 0; j < n; ++j) { dk[j] *= -2 / S; db[j] = 0; }
    for (int64_t s = 0; s < p.R; ++s) {
      double* g = dm + s * n;
      const double* x = m + s * n;
      v[s] = p.y[i * p.R + s] - dot(b.data(), x, n);
      const double along = dot(g, k.data(), n);
      dS -= along * v[s] / (S * S) + g_quadratic[s] * v[s] * v[s] / (S * S);
      dv[s] = along / S + 2 * g_quadratic[s] * v[s] / S;
      for (int64_t j = 0; j < n; ++j) {
        dk[j] += g[j] * v[s] / S;
        ga[j] += g[j] * x[j];
        g[j] = g[j] * a[j] - dv[s] * b[j];
        db[j] -= dv[s] * x[j];
      }
    }
    *dr += dS;
    for (int64_t j = 0; j < n; ++j) {
      ga[j] += dk[j] * Pb[j];
      dPb[j] = a[j] * dk[j] + dS * b[j];
      db[j] += dS * Pb[j];
      dQC[j] = dk[j] + dS * C[j];
      gC[j] += dS * QC[j];
    }
    for (int64_t j = 0; j < n; ++j) {
      double through_P = 0, through_Q = 0;
      for (int64_t l = 0; l < n; ++l) {
        dP[j * n + l] += 0.5 * (dPb[j] * b[l] + b[j] * dPb[l]);
        gQ[j * n + l] += dQC[j] * C[l];
        through_P += P[j * n + l] * dPb[l];
        through_Q += Q[j * n + l] * dQC[l];
      }
      db[j] += through_P;
      gC[j] += through_Q;
    }
    dseen[i] += db[n - 1];
    for (int64_t j = 0; j < n - 1; ++j) {
      gC[j] += db[j] * (a[j] - (p.increments ? 1.0 : 0.0));
      ga[j] += db[j] * C[j];
    }
  }
}
