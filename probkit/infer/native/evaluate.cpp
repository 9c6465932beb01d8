
// loss and gradient at one point; nonzero where a matrix is not positive definite
extern "C" int64_t evaluate_once(const REAL* theta, const void* const* inputs, uint64_t seed,
                                 byte* workspace, double* loss, REAL* gradient) {
  Random random(seed);
  prepare(workspace);
  return evaluate(theta, inputs, random, workspace, loss, gradient);
}
