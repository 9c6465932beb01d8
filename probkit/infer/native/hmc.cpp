static int64_t at(const REAL* q, const void* const* inputs, byte* workspace, double* value,
                  REAL* gradient) {
  Random none(0);
  const int64_t failure = evaluate(q, inputs, none, workspace, value, gradient);
  if (failure) *value = NAN;
  return std::isfinite(*value);
}

// y = S x and y = S' x for the lower factor S, or its diagonal
static void apply(const double* factor, int64_t dense, const REAL* x, REAL* y) {
  for (int64_t i = 0; i < SIZE; ++i) {
    if (!dense) { y[i] = (REAL)(factor[i] * x[i]); continue; }
    double total = 0;
    #pragma omp simd reduction(+:total)
    for (int64_t j = 0; j <= i; ++j) total += factor[i * SIZE + j] * x[j];
    y[i] = (REAL)total;
  }
}

static void apply_transposed(const double* factor, int64_t dense, const REAL* x, REAL* y) {
  for (int64_t i = 0; i < SIZE; ++i) y[i] = dense ? 0 : (REAL)(factor[i] * x[i]);
  if (!dense) return;
  for (int64_t i = 0; i < SIZE; ++i)
    for (int64_t j = 0; j <= i; ++j) y[j] += (REAL)(factor[i * SIZE + j] * x[i]);
}

static double kinetic(const REAL* p) {
  double total = 0;
  #pragma omp simd reduction(+:total)
  for (int64_t i = 0; i < SIZE; ++i) total += (double)p[i] * p[i];
  return 0.5 * total;
}

// all trajectories of all chains, one chain after the other; arrays are (trajectory, chain, SIZE)
// or (trajectory, chain); position, value and gradient are those of the chains and change
extern "C" int64_t hmc(int64_t chains, int64_t trajectories, const int64_t* lengths, double step,
                       const double* factor, int64_t dense, const REAL* momenta,
                       const double* log_uniforms, REAL* position, double* value, REAL* gradient,
                       const void* const* inputs, byte* workspace, REAL* scratch, REAL* draws,
                       double* values, double* energies, double* errors, REAL* proposals,
                       REAL* ends) {
  prepare(workspace);
  REAL *q = scratch, *p = scratch + SIZE, *g = scratch + 2 * SIZE, *w = scratch + 3 * SIZE;
  for (int64_t c = 0; c < chains; ++c) {
    REAL *q0 = position + c * SIZE, *g0 = gradient + c * SIZE;
    for (int64_t n = 0; n < trajectories; ++n) {
      const int64_t row = n * chains + c;
      std::memcpy(q, q0, SIZE * sizeof(REAL));
      std::memcpy(p, momenta + row * SIZE, SIZE * sizeof(REAL));
      std::memcpy(g, g0, SIZE * sizeof(REAL));
      const double energy = value[c] + kinetic(p);
      double u = value[c];
      bool finite = true;
      for (int64_t l = 0; l < lengths[n] && finite; ++l) {
        apply_transposed(factor, dense, g, w);
        for (int64_t i = 0; i < SIZE; ++i) p[i] -= (REAL)(0.5 * step) * w[i];
        apply(factor, dense, p, w);
        for (int64_t i = 0; i < SIZE; ++i) q[i] += (REAL)step * w[i];
        finite = at(q, inputs, workspace, &u, g);
        apply_transposed(factor, dense, g, w);
        for (int64_t i = 0; i < SIZE; ++i) p[i] -= (REAL)(0.5 * step) * w[i];
      }
      double error = finite ? u + kinetic(p) - energy : INFINITY;
      if (!std::isfinite(error)) error = INFINITY;
      std::memcpy(proposals + row * SIZE, q, SIZE * sizeof(REAL));
      std::memcpy(ends + row * SIZE, p, SIZE * sizeof(REAL));
      if (log_uniforms[row] < -error) {
        std::memcpy(q0, q, SIZE * sizeof(REAL));
        std::memcpy(g0, g, SIZE * sizeof(REAL));
        value[c] = u;
      }
      std::memcpy(draws + row * SIZE, q0, SIZE * sizeof(REAL));
      values[row] = value[c];
      energies[row] = energy;
      errors[row] = error;
    }
  }
  return 0;
}
