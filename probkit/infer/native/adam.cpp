
// up to `steps` steps of Adam, or plain ones; returns how many were done: fewer when loss or gradient is not finite;
// `evaluated` are the parameters of the last objective, one update before theta
extern "C" int64_t adam(int64_t steps, int64_t done, REAL* theta, REAL* first, REAL* second,
                        REAL* evaluated, const double* rates, double clip, double weight_decay,
                        int64_t plain, const void* const* inputs, uint64_t seed, byte* workspace, double* losses,
                        int64_t* failure) {
  Random random(seed);
  prepare(workspace);
  REAL* gradient = (REAL*)(workspace + GRADIENT);
  for (int64_t step = 0; step < steps; ++step) {
    double loss;
    *failure = evaluate(theta, inputs, random, workspace, &loss, gradient);
    double norm = 0;
    #pragma omp simd reduction(+:norm)
    for (int64_t i = 0; i < SIZE; ++i) norm += (double)gradient[i] * gradient[i];
    if (*failure || !std::isfinite(loss) || !std::isfinite(norm)) return step;
    const double shrink = clip > 0 && norm > clip * clip ? clip / std::sqrt(norm) : 1;
    const double number = (double)(done + step + 1);
    const double correct1 = 1 - std::pow(0.9, number), correct2 = 1 - std::pow(0.999, number);
    const double rate = rates[step] / correct1, scale2 = 1 / correct2;
    for (int64_t i = 0; i < SIZE; ++i) {
      evaluated[i] = theta[i];
      const double g = gradient[i] * shrink;
      if (plain) { theta[i] -= rates[step] * g; continue; }
      const double m = 0.9 * first[i] + 0.1 * g, v = 0.999 * second[i] + 0.001 * g * g;
      first[i] = m;
      second[i] = v;
      theta[i] -= rate * m / (std::sqrt(v * scale2) + 1e-8) + rates[step] * weight_decay * theta[i];
    }
    losses[step] = loss;
  }
  return steps;
}
