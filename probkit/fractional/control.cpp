// A step of a controlled path and its adjoint; see control_step.py for the equations.
#include <cstdint>
#include <vector>

namespace {

struct Problem {
  int64_t S, D, K;
  double h;
  const double *decay, *response, *gain, *pull;  // (K), (K), (D (K + 2), D) and (D); gain may be null
};

}  // namespace

// x, drift, scale, net, slope (S, D); y, own (S, D, K); w (D, K); net may be null.
// Writes x1, u (S, D) and y1 (S, D, K).
extern "C" void control_step(const Problem* problem, const double* x, const double* y,
                             const double* drift, const double* scale, const double* net,
                             const double* slope, const double* w, const double* own, double* x1,
                             double* y1, double* u) {
  const Problem& p = *problem;
  const int64_t D = p.D, K = p.K, m = D * K;
  std::vector<double> ahead(D * (K + 2));
  for (int64_t s = 0; s < p.S; ++s, x += D, y += m, drift += D, scale += D, slope += D, own += m,
               x1 += D, y1 += m, u += D) {
    for (int64_t i = 0; i < D; ++i) {
      double moved = slope[i] * p.h;
      for (int64_t k = 0; k < K; ++k) {
        moved += w[i * K + k] * (p.decay[k] - 1) * y[i * K + k];
        ahead[D + i * K + k] = p.decay[k] * y[i * K + k];
      }
      ahead[i] = x[i] + p.h * drift[i] + scale[i] * moved;
      ahead[D + m + i] = slope[i];
      u[i] = net ? net[s * D + i] : 0.0;
    }
    if (p.gain)
      for (int64_t i = 0; i < D; ++i) {
        u[i] += p.pull[i];
        for (int64_t c = 0; c < m + 2 * D; ++c) u[i] += ahead[c] * p.gain[c * D + i];
      }
    for (int64_t i = 0; i < D; ++i) {
      double moved = 0;
      for (int64_t k = 0; k < K; ++k) {
        const double kick = own[i * K + k] + u[i] * p.response[k];
        y1[i * K + k] = ahead[D + i * K + k] + kick;
        moved += w[i * K + k] * kick;
      }
      x1[i] = ahead[i] + scale[i] * moved;
    }
  }
}

// from derivatives in x1, y1 and u to those in x, y, drift, scale, net, slope, w and own; that in w
// is added to
extern "C" void control_step_adjoint(const Problem* problem, const double* y, const double* scale,
                                     const double* slope, const double* w, const double* own,
                                     const double* u, const double* gx1, const double* gy1,
                                     const double* gu, double* dx, double* dy, double* ddrift,
                                     double* dscale, double* dnet, double* dslope, double* dw) {
  const Problem& p = *problem;
  const int64_t D = p.D, K = p.K, m = D * K;
  for (int64_t s = 0; s < p.S; ++s, y += m, scale += D, slope += D, own += m, u += D, gx1 += D,
               gy1 += m, gu += D, dx += D, dy += m, ddrift += D, dscale += D, dnet += D,
               dslope += D) {
    for (int64_t i = 0; i < D; ++i) {
      double sum = gu[i], moved = 0;
      for (int64_t k = 0; k < K; ++k) {
        const int64_t l = i * K + k;
        const double kick = own[l] + u[i] * p.response[k];
        sum += p.response[k] * (gy1[l] + gx1[i] * scale[i] * w[l]);
        moved += w[l] * kick;
        dw[l] += gx1[i] * scale[i] * kick;
      }
      dnet[i] = sum;
      dscale[i] = gx1[i] * moved;
    }
    for (int64_t i = 0; i < D; ++i) {
      dx[i] = gx1[i];
      if (p.gain)
        for (int64_t j = 0; j < D; ++j) dx[i] += p.gain[i * D + j] * dnet[j];
      double moved = slope[i] * p.h;
      for (int64_t k = 0; k < K; ++k) {
        const int64_t l = i * K + k;
        double through = gy1[l];
        if (p.gain)
          for (int64_t j = 0; j < D; ++j) through += p.gain[(D + l) * D + j] * dnet[j];
        dy[l] = p.decay[k] * through + dx[i] * scale[i] * w[l] * (p.decay[k] - 1);
        moved += w[l] * (p.decay[k] - 1) * y[l];
        dw[l] += dx[i] * scale[i] * (p.decay[k] - 1) * y[l];
      }
      ddrift[i] = p.h * dx[i];
      dscale[i] += dx[i] * moved;
      dslope[i] = dx[i] * scale[i] * p.h;
      if (p.gain)
        for (int64_t j = 0; j < D; ++j) dslope[i] += p.gain[(D + m + i) * D + j] * dnet[j];
    }
  }
}
