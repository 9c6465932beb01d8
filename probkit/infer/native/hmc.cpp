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
    #pragma omp simd
    for (int64_t j = 0; j <= i; ++j) y[j] += (REAL)(factor[i * SIZE + j] * x[i]);
}

static double kinetic(const REAL* p) {
  double total = 0;
  #pragma omp simd reduction(+:total)
  for (int64_t i = 0; i < SIZE; ++i) total += (double)p[i] * p[i];
  return 0.5 * total;
}

static void move(const double* factor, int64_t dense, double step, const REAL* x, REAL* y,
                 bool transposed, REAL* scratch) {
  if (transposed) apply_transposed(factor, dense, x, scratch);
  else apply(factor, dense, x, scratch);
  for (int64_t i = 0; i < SIZE; ++i) y[i] += (REAL)step * scratch[i];
}

// all trajectories of all chains, BATCH chains at a time in step; arrays are (trajectory, chain,
// SIZE) or (trajectory, chain); position, value and gradient are those of the chains and change
extern "C" int64_t hmc(int64_t chains, int64_t trajectories, const int64_t* lengths, double step,
                       const double* factor, int64_t dense, const REAL* momenta,
                       const double* log_uniforms, REAL* position, double* value, REAL* gradient,
                       const void* const* inputs, byte* workspace, REAL* scratch, REAL* draws,
                       double* values, double* energies, double* errors, REAL* proposals,
                       REAL* ends) {
  prepare(workspace);
  Random none(0);
  const int64_t all = BATCH * SIZE, bytes = all * sizeof(REAL);
  REAL *q = scratch, *p = q + all, *g = p + all, *w = g + all;
  double u[BATCH], energy[BATCH];
  bool finite[BATCH];
  for (int64_t first = 0; first < chains; first += BATCH) {
    REAL *q0 = position + first * SIZE, *g0 = gradient + first * SIZE;
    double* u0 = value + first;
    for (int64_t n = 0; n < trajectories; ++n) {
      const int64_t row = n * chains + first;
      std::memcpy(q, q0, bytes);
      std::memcpy(p, momenta + row * SIZE, bytes);
      std::memcpy(g, g0, bytes);
      for (int64_t c = 0; c < BATCH; ++c) {
        u[c] = u0[c];
        energy[c] = u[c] + kinetic(p + c * SIZE);
        finite[c] = true;
      }
      int64_t left = BATCH;
      for (int64_t l = 0; l < lengths[n] && left; ++l) {
        for (int64_t c = 0; c < BATCH; ++c) {
          move(factor, dense, -0.5 * step, g + c * SIZE, p + c * SIZE, true, w);
          move(factor, dense, step, p + c * SIZE, q + c * SIZE, false, w);
        }
        const int64_t failed = evaluate(q, inputs, none, workspace, u, g);
        for (int64_t c = 0; c < BATCH; ++c) {
          if (finite[c] && (failed || !std::isfinite(u[c]))) { finite[c] = false; --left; }
          move(factor, dense, -0.5 * step, g + c * SIZE, p + c * SIZE, true, w);
        }
      }
      for (int64_t c = 0; c < BATCH; ++c) {
        double error = finite[c] ? u[c] + kinetic(p + c * SIZE) - energy[c] : INFINITY;
        if (!std::isfinite(error)) error = INFINITY;
        if (log_uniforms[row + c] < -error) {
          std::memcpy(q0 + c * SIZE, q + c * SIZE, SIZE * sizeof(REAL));
          std::memcpy(g0 + c * SIZE, g + c * SIZE, SIZE * sizeof(REAL));
          u0[c] = u[c];
        }
        values[row + c] = u0[c];
        energies[row + c] = energy[c];
        errors[row + c] = error;
      }
      std::memcpy(proposals + row * SIZE, q, bytes);
      std::memcpy(ends + row * SIZE, p, bytes);
      std::memcpy(draws + row * SIZE, q0, bytes);
    }
  }
  return 0;
}
