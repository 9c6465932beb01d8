// The backward recursion of conditioned paths, and the whitening of fractional increments with its
// adjoint; see linearized.py and increments.py for the equations.
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

// C (p, q) = A (p, r) B (r, q), or A' (r, p) in the place of A
void product(const double* A, const double* B, double* C, int64_t p, int64_t r, int64_t q,
             bool transposed) {
  for (int64_t i = 0; i < p; ++i) {
    double* row = C + i * q;
    for (int64_t j = 0; j < q; ++j) row[j] = 0;
    for (int64_t k = 0; k < r; ++k) {
      const double a = transposed ? A[k * p + i] : A[i * r + k];
      if (a == 0) continue;
      const double* b = B + k * q;
#pragma omp simd
      for (int64_t j = 0; j < q; ++j) row[j] += a * b[j];
    }
  }
}

bool cholesky(double* M, int64_t m) {
  for (int64_t j = 0; j < m; ++j) {
    double pivot = M[j * m + j];
    for (int64_t k = 0; k < j; ++k) pivot -= M[j * m + k] * M[j * m + k];
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    const double root = std::sqrt(pivot);
    M[j * m + j] = root;
    for (int64_t i = j + 1; i < m; ++i) {
      double sum = M[i * m + j];
      for (int64_t k = 0; k < j; ++k) sum -= M[i * m + k] * M[j * m + k];
      M[i * m + j] = sum / root;
    }
  }
  return true;
}

// X (m, q) <- (C C')^-1 X
void solve(const double* C, double* X, int64_t m, int64_t q) {
  for (int64_t i = 0; i < m; ++i) {
    double* row = X + i * q;
    for (int64_t k = 0; k < i; ++k)
#pragma omp simd
      for (int64_t j = 0; j < q; ++j) row[j] -= C[i * m + k] * X[k * q + j];
    for (int64_t j = 0; j < q; ++j) row[j] /= C[i * m + i];
  }
  for (int64_t i = m - 1; i >= 0; --i) {
    double* row = X + i * q;
    for (int64_t k = i + 1; k < m; ++k)
#pragma omp simd
      for (int64_t j = 0; j < q; ++j) row[j] -= C[k * m + i] * X[k * q + j];
    for (int64_t j = 0; j < q; ++j) row[j] /= C[i * m + i];
  }
}

}  // namespace

// L (d, d) and l (d) hold those of the last point, and in the end those of the first.
// Returns -1, or the step whose law is not finite.
extern "C" int64_t condition(int64_t N, int64_t d, int64_t m, const double* F, const double* c,
                             const double* T, const double* seen, const double* pulls, double* L,
                             double* l, double* gain, double* pull, double* root,
                             double* log_det) {
  std::vector<double> LT(d * m), M(m * m), rest(d * d), moved(d * d), left(d), shift(m);
  for (int64_t n = N - 1; n >= 0; --n) {
    const double *Fn = F + n * d * d, *Tn = T + n * d * m, *cn = c + n * d;
    double *G = gain + n * m * d, *R = root + n * m * m, *p = pull + n * m;
    product(L, Tn, LT.data(), d, d, m, false);
    product(Tn, LT.data(), M.data(), m, d, m, true);
    for (int64_t i = 0; i < m; ++i) M[i * m + i] += 1;
    if (!cholesky(M.data(), m)) return n;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < d; ++j) G[i * d + j] = LT[j * m + i];
    solve(M.data(), G, m, d);
    product(Tn, l, p, m, d, 1, true);
    solve(M.data(), p, m, 1);
    double total = 0;
    for (int64_t i = 0; i < m; ++i) total += std::log(M[i * m + i]);
    log_det[n] = total;
    // the root is the transposed inverse of the factor, upper triangular: solve column by column
    for (int64_t j = 0; j < m; ++j)
      for (int64_t i = m - 1; i >= 0; --i) {
        double sum = i == j ? 1 : 0;
        for (int64_t k = i + 1; k <= j; ++k) sum -= M[k * m + i] * R[k * m + j];
        R[i * m + j] = i > j ? 0 : sum / M[i * m + i];
      }
    product(LT.data(), G, rest.data(), d, m, d, false);
    for (int64_t i = 0; i < d * d; ++i) rest[i] = L[i] - rest[i];
    for (int64_t i = 0; i < d; ++i) {
      double sum = l[i];
      for (int64_t k = 0; k < m; ++k) sum -= LT[i * m + k] * p[k];
      for (int64_t k = 0; k < d; ++k) sum -= rest[i * d + k] * cn[k];
      left[i] = sum;
    }
    product(rest.data(), Fn, moved.data(), d, d, d, false);
    product(Fn, moved.data(), L, d, d, d, true);
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j <= i; ++j)
        L[i * d + j] = L[j * d + i] = (L[i * d + j] + L[j * d + i]) / 2 + seen[n * d * d + i * d + j];
    product(Fn, left.data(), l, d, d, 1, true);
    for (int64_t i = 0; i < d; ++i) l[i] += pulls[n * d + i];
  }
  return -1;
}

// z (N, S) of increments r (N, S), with the gains k (N, n) of the predictions and their sd (N);
// a (n) decays, b (n) loadings
extern "C" void whiten(int64_t N, int64_t n, int64_t S, const double* r, const double* k,
                       const double* sd, const double* a, const double* b, double* z) {
  std::vector<double> m(n * S, 0.0), v(S);
  for (int64_t i = 0; i < N; ++i) {
    for (int64_t s = 0; s < S; ++s) v[s] = r[i * S + s];
    for (int64_t j = 0; j < n; ++j)
#pragma omp simd
      for (int64_t s = 0; s < S; ++s) v[s] -= b[j] * m[j * S + s];
    for (int64_t j = 0; j < n; ++j)
#pragma omp simd
      for (int64_t s = 0; s < S; ++s) m[j * S + s] = a[j] * m[j * S + s] + k[i * n + j] * v[s];
    for (int64_t s = 0; s < S; ++s) z[i * S + s] = v[s] / sd[i];
  }
}

// the derivative with respect to r from that with respect to z
extern "C" void whiten_adjoint(int64_t N, int64_t n, int64_t S, const double* z, const double* k,
                               const double* sd, const double* a, const double* b, double* r) {
  std::vector<double> m(n * S, 0.0), v(S);
  for (int64_t i = N - 1; i >= 0; --i) {
    for (int64_t s = 0; s < S; ++s) v[s] = z[i * S + s] / sd[i];
    for (int64_t j = 0; j < n; ++j)
#pragma omp simd
      for (int64_t s = 0; s < S; ++s) v[s] += k[i * n + j] * m[j * S + s];
    for (int64_t j = 0; j < n; ++j)
#pragma omp simd
      for (int64_t s = 0; s < S; ++s) m[j * S + s] = a[j] * m[j * S + s] - b[j] * v[s];
    for (int64_t s = 0; s < S; ++s) r[i * S + s] = v[s];
  }
}
