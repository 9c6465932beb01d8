#include <cstdint>
#include <cstring>
#include <cmath>
#include <type_traits>
#include <vector>

typedef uint8_t byte;

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
// glibc's vector versions, called from loops that the compiler vectorises
#pragma omp declare simd notinbranch
extern "C" double exp(double) noexcept;
#pragma omp declare simd notinbranch
extern "C" double log(double) noexcept;
#pragma omp declare simd notinbranch
extern "C" double sin(double) noexcept;
#pragma omp declare simd notinbranch
extern "C" double cos(double) noexcept;
#pragma omp declare simd notinbranch
extern "C" double pow(double, double) noexcept;
#endif

#define UNARY(name) \
  static inline double p_##name(double x) { return name(x); } \
  static inline float p_##name(float x) { return name##f(x); }
UNARY(exp) UNARY(expm1) UNARY(log) UNARY(log1p) UNARY(sqrt) UNARY(sin) UNARY(cos) UNARY(tan)
UNARY(tanh) UNARY(sinh) UNARY(cosh) UNARY(asin) UNARY(acos) UNARY(atan) UNARY(erf) UNARY(erfc)
UNARY(lgamma) UNARY(floor) UNARY(ceil) UNARY(log2) UNARY(log10) UNARY(exp2) UNARY(trunc)
#undef UNARY
static inline double p_round(double x) { return nearbyint(x); }
static inline double p_abs(double x) { return fabs(x); }
static inline double p_sign(double x) { return x > 0 ? 1.0 : (x < 0 ? -1.0 : x); }
static inline double p_pow(double x, double y) { return pow(x, y); }
static inline double p_atan2(double y, double x) { return atan2(y, x); }
template <class T> static inline T square(T x) { return x * x; }
static inline double p_sigmoid(double x) {
  const double e = exp(-fabs(x));
  return (x >= 0 ? 1.0 : e) / (1.0 + e);
}
template <class A, class B> static inline double at_least(A x, B low) { return x < low ? low : x; }
template <class A, class B> static inline double at_most(A x, B high) { return x > high ? high : x; }

// recurrence up to 10, then the asymptotic series; reflection below zero
static inline double p_digamma(double x) {
  double total = 0;
  if (x <= 0) {
    if (floor(x) == x) return NAN;
    total = -M_PI / tan(M_PI * x);
    x = 1 - x;
  }
  while (x < 10) { total -= 1 / x; x += 1; }
  const double s = 1 / (x * x);
  return total + log(x) - 0.5 / x - s * (1. / 12 - s * (1. / 120 - s * (1. / 252 - s * (1. / 240
      - s * (1. / 132 - s * (691. / 32760 - s / 12))))));
}

static inline double p_trigamma(double x) {
  double total = 0;
  if (x <= 0) {
    if (floor(x) == x) return INFINITY;
    const double s = M_PI / sin(M_PI * x);
    return s * s - p_trigamma(1 - x);
  }
  while (x < 10) { total += 1 / (x * x); x += 1; }
  const double s = 1 / (x * x);
  return total + 1 / x + s / 2 + s / x * (1. / 6 - s * (1. / 30 - s * (1. / 42 - s * (1. / 30
      - s * (5. / 66 - s * (691. / 2730 - s * 7 / 6))))));
}

// xoshiro256++ (Blackman and Vigna 2019), seeded by splitmix64; polar method for normals
struct Random {
  uint64_t s[4];
  double spare;
  bool has_spare;
  explicit Random(uint64_t seed) : spare(0), has_spare(false) {
    for (int i = 0; i < 4; ++i) {
      uint64_t z = (seed += 0x9e3779b97f4a7c15ull);
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
      s[i] = z ^ (z >> 31);
    }
  }
  uint64_t next() {
    const uint64_t sum = s[0] + s[3];
    const uint64_t result = ((sum << 23) | (sum >> 41)) + s[0];
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3]; s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
  }
  double uniform() { return ((next() >> 11) + 0.5) * 0x1.0p-53; }
  uint64_t below(uint64_t n) { return (uint64_t)(((__uint128_t)next() * n) >> 64); }
  double normal() {
    if (has_spare) { has_spare = false; return spare; }
    double x, y, r;
    do { x = 2 * uniform() - 1; y = 2 * uniform() - 1; r = x * x + y * y; } while (r >= 1 || r == 0);
    const double scale = std::sqrt(-2 * std::log(r) / r);
    spare = y * scale;
    has_spare = true;
    return x * scale;
  }
  // the first m entries of a random permutation of 0..n-1, kept in `order` between calls
  void choose(int64_t* order, int64_t n, int64_t m) {
    for (int64_t i = 0; i < m; ++i) {
      const int64_t j = i + (int64_t)below((uint64_t)(n - i));
      const int64_t kept = order[i]; order[i] = order[j]; order[j] = kept;
    }
  }
};

static inline int64_t wrap(int64_t i, int64_t n) { return i < 0 ? i + n : i; }

// C (n x p) = A (n x m) B (m x p); strides of the inputs are free, C is contiguous
// C's remainder, with the sign of a; and Python's, with the sign of b
template <class A, class B> static inline auto p_fmod(A a, B b) {
  if constexpr (std::is_integral<A>::value && std::is_integral<B>::value) return a % (A)b;
  else return std::fmod(a, b);
}
template <class A, class B> static inline auto p_remainder(A a, B b) {
  const auto rest = p_fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

// row += sum over k of a[k * step] * b_k, rows b_k of length p; four at a time spare loads of row
template <class T>
static inline void add_rows(T* __restrict row, const T* a, int64_t step, const T* b, int64_t stride,
                            int64_t count, int64_t p, T sign) {
  int64_t k = 0;
  for (; k + 4 <= count; k += 4) {
    const T a0 = sign * a[k * step], a1 = sign * a[(k + 1) * step];
    const T a2 = sign * a[(k + 2) * step], a3 = sign * a[(k + 3) * step];
    const T *b0 = b + k * stride, *b1 = b0 + stride, *b2 = b1 + stride, *b3 = b2 + stride;
    #pragma omp simd
    for (int64_t j = 0; j < p; ++j) row[j] += a0 * b0[j] + a1 * b1[j] + (a2 * b2[j] + a3 * b3[j]);
  }
  for (; k < count; ++k) {
    const T scale = sign * a[k * step];
    const T* one = b + k * stride;
    #pragma omp simd
    for (int64_t j = 0; j < p; ++j) row[j] += scale * one[j];
  }
}

// P columns of c = a b: rows of the product stay in registers, and four at a time share rows of b
template <int P, class T>
static void columns_by_rows(const T* __restrict a, int64_t a0, int64_t a1, const T* __restrict b,
                            T* __restrict c, int64_t c0, int64_t c1, int64_t n, int64_t m) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    T sum[4][P] = {};
    const T* row = a + i * a0;
    for (int64_t k = 0; k < m; ++k)
      for (int r = 0; r < 4; ++r) {
        const T scale = row[k * a1 + r * a0];
        #pragma omp simd
        for (int j = 0; j < P; ++j) sum[r][j] += scale * b[k * P + j];
      }
    for (int j = 0; j < P; ++j)
      for (int r = 0; r < 4; ++r) c[(i + r) * c0 + j * c1] = sum[r][j];
  }
  for (; i < n; ++i)
    for (int j = 0; j < P; ++j) {
      T sum = 0;
      for (int64_t k = 0; k < m; ++k) sum += a[i * a0 + k * a1] * b[k * P + j];
      c[i * c0 + j * c1] = sum;
    }
}

// the same where columns of a are contiguous: four of them at a time add to all of the product
template <int P, class T>
static void columns_by_columns(const T* __restrict a, int64_t a1, const T* __restrict b,
                               int64_t b0, int64_t b1, T* __restrict c, int64_t c0, int64_t c1,
                               int64_t n, int64_t m, T* __restrict sum) {
  for (int64_t i = 0; i < n * P; ++i) sum[i] = 0;
  for (int64_t k = 0; k < m; k += 4) {
    T x[4][P] = {};
    const int64_t count = m - k < 4 ? m - k : 4;
    for (int64_t l = 0; l < count; ++l)
      for (int j = 0; j < P; ++j) x[l][j] = b[(k + l) * b0 + j * b1];
    const T *s0 = a + k * a1, *s1 = count > 1 ? s0 + a1 : s0, *s2 = count > 2 ? s1 + a1 : s0;
    const T* s3 = count > 3 ? s2 + a1 : s0;
    for (int64_t i = 0; i < n; ++i) {
      T* row = sum + i * P;
      #pragma omp simd
      for (int j = 0; j < P; ++j)
        row[j] += s0[i] * x[0][j] + s1[i] * x[1][j] + (s2[i] * x[2][j] + s3[i] * x[3][j]);
    }
  }
  for (int j = 0; j < P; ++j)
    for (int64_t i = 0; i < n; ++i) c[i * c0 + j * c1] = sum[i * P + j];
}

template <int P, class T>
static void columns(const T* a, int64_t a0, int64_t a1, const T* b, int64_t b0, int64_t b1, T* c,
                    int64_t c0, int64_t c1, int64_t n, int64_t m) {
  std::vector<T> scratch((a0 == 1 && a1 != 1 ? n : m) * P);
  if (a0 == 1 && a1 != 1) {
    columns_by_columns<P>(a, a1, b, b0, b1, c, c0, c1, n, m, scratch.data());
    return;
  }
  for (int64_t k = 0; k < m; ++k)
    for (int j = 0; j < P; ++j) scratch[k * P + j] = b[k * b0 + j * b1];
  columns_by_rows<P>(a, a0, a1, scratch.data(), c, c0, c1, n, m);
}

// c = a b with any strides: many vectors b, each by the same matrix a, which is read once for eight
template <class T>
static void multiply_shared(const T* a, int64_t a0, int64_t a1, const T* b, int64_t b0, int64_t b1,
                            T* c, int64_t c0, int64_t c1, int64_t n, int64_t m, int64_t p) {
  int64_t j = 0;
  for (; j + 8 <= p; j += 8) columns<8>(a, a0, a1, b + j * b1, b0, b1, c + j * c1, c0, c1, n, m);
  for (; j + 4 <= p; j += 4) columns<4>(a, a0, a1, b + j * b1, b0, b1, c + j * c1, c0, c1, n, m);
  for (; j < p; ++j) columns<1>(a, a0, a1, b + j * b1, b0, b1, c + j * c1, c0, c1, n, m);
}

template <class T>
static void multiply(const T* __restrict a, int64_t a0, int64_t a1, const T* __restrict b, int64_t b0,
                     int64_t b1, T* __restrict c, int64_t n, int64_t m, int64_t p) {
  if (b1 == 1 && p > 1) {
    for (int64_t i = 0; i < n; ++i) {
      T* __restrict row = c + i * p;
      for (int64_t j = 0; j < p; ++j) row[j] = 0;
      add_rows<T>(row, a + i * a0, a1, b, b0, m, p, 1);
    }
  } else if (a1 == 1 && b0 == 1) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < p; ++j) {
        T total = 0;
        #pragma omp simd reduction(+:total)
        for (int64_t k = 0; k < m; ++k) total += a[i * a0 + k] * b[k + j * b1];
        c[i * p + j] = total;
      }
  } else if (a0 == 1 && p == 1) {
    for (int64_t i = 0; i < n; ++i) c[i] = 0;
    for (int64_t k = 0; k < m; ++k) {
      const T scale = b[k * b0];
      for (int64_t i = 0; i < n; ++i) c[i] += scale * a[i + k * a1];
    }
  } else {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < p; ++j) {
        T total = 0;
        #pragma omp simd reduction(+:total)
        for (int64_t k = 0; k < m; ++k) total += a[i * a0 + k * a1] * b[k * b0 + j * b1];
        c[i * p + j] = total;
      }
  }
}

// the same for a triangular square matrix, half of which is not read; columns of b are contiguous
template <class T>
static void multiply_triangular(const T* __restrict a, int64_t a0, int64_t a1,
                                const T* __restrict b, int64_t b0, T* __restrict c, int64_t n,
                                int64_t p, bool upper) {
  for (int64_t i = 0; i < n; ++i) {
    T* __restrict row = c + i * p;
    for (int64_t j = 0; j < p; ++j) row[j] = 0;
    const int64_t first = upper ? i : 0, last = upper ? n : i + 1;
    add_rows<T>(row, a + i * a0 + first * a1, a1, b + first * b0, b0, last - first, p, 1);
  }
}

// lower factor; returns 0, or the order of the first minor that is not positive. Rows of its
// transpose are made one after another in the upper half, in contiguous memory, and mirrored.
template <class T>
static int32_t cholesky(const T* a, int64_t a0, int64_t a1, T* __restrict l, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    T* row = l + i * n;
    for (int64_t j = i; j < n; ++j) row[j] = a[j * a0 + i * a1];
    add_rows<T>(row + i, l + i, n, l + i, n, i, n - i, -1);
    if (!(row[i] > 0)) { for (int64_t k = 0; k < n * n; ++k) l[k] = NAN; return (int32_t)(i + 1); }
    const T inverse = 1 / (row[i] = std::sqrt(row[i]));
    for (int64_t j = i + 1; j < n; ++j) row[j] *= inverse;
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i + 1; j < n; ++j) { l[j * n + i] = l[i * n + j]; l[i * n + j] = 0; }
  return 0;
}

// X (n x p, contiguous) with A X = B, A triangular (n x n)
template <class T>
static void solve_triangular(const T* __restrict a, int64_t a0, int64_t a1, const T* b, int64_t b0,
                             int64_t b1, T* __restrict x, int64_t n, int64_t p, bool upper, bool unit) {
  for (int64_t step = 0; step < n; ++step) {
    const int64_t i = upper ? n - 1 - step : step;
    T* __restrict row = x + i * p;
    for (int64_t j = 0; j < p; ++j) row[j] = b[i * b0 + j * b1];
    const int64_t first = upper ? i + 1 : 0, last = upper ? n : i;
    add_rows<T>(row, a + i * a0 + first * a1, a1, x + first * p, p, last - first, p, -1);
    if (unit) continue;
    const T inverse = 1 / a[i * a0 + i * a1];
    for (int64_t j = 0; j < p; ++j) row[j] *= inverse;
  }
}
