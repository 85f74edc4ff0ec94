// Log-sum-exp and soft-max products of Gaussian interactions on the CPU, for entropic optimal transport:
//
//   SF_PASS 0   l_i = log sum_j exp(h_j - |x_i - y_j|^2 / sigma^2)
//   SF_PASS 1   v_i = sum_j exp(u_i + h_j - |x_i - y_j|^2 / sigma^2) b_j        (SF_E features; with u = -l the weights of a row sum to one)
//
// One translation unit is one (SF_PASS, SF_REAL, SF_D, SF_E). Exponents live in units of log 2. The first pass keeps a running maximum: a block's
// exponents are stored, their maximum taken, and only then are they exponentiated, so that nothing overflows whatever h is. h = -inf is a weight of zero.
#include "native.h"
#include <math.h>

enum { W = Lanes<T>::count, R = 2, TILE = R * W, BLOCK = 128, NV = SF_PASS ? SF_E : 1 };
static const T kLog2e = T(1.4426950408889634074), kLowest = T(-1e30);

static inline bool no_weight(T h) {  // NaN and +inf; -inf is a weight of zero
  return any_nonfinite(&h, 1) && !(h < 0);
}
static inline V at_least(V a, V low) { return a > low ? a : low; }

struct Call {
  const Plan* plan;
  const T *sigma, *x, *u, *y, *h, *b;
  T* v;
};

static void tile(const Call& c, int64_t p, int64_t i0, int64_t rows) {
  const int64_t j0 = c.plan->columns[p], j1 = c.plan->columns[p + 1];
  const double sigma = double(c.sigma[p]);
  const T rate = T(-double(kLog2e) / (sigma * sigma));
  const V zero = {}, lowest = zero + kLowest;
  V x[R][SF_D], u[R];
  for (int r = 0; r < R; ++r)
    for (int l = 0; l < W; ++l) {
      const int64_t i = i0 + (r * W + l < rows ? r * W + l : rows - 1);
      for (int k = 0; k < SF_D; ++k) x[r][k][l] = c.x[i * SF_D + k];
      u[r][l] = SF_PASS ? c.u[i] * kLog2e : T(0);
    }
  V top[R];
  double sum[R][NV][W] = {};
  for (int r = 0; r < R; ++r) top[r] = lowest;
  bool bad = !(sigma > 0) || any_nonfinite(&c.sigma[p], 1);
  static thread_local V t[BLOCK][R];

  for (int64_t begin = j0; begin < j1; begin += BLOCK) {
    const int count = j1 - begin < BLOCK ? int(j1 - begin) : int(BLOCK);
    bad |= any_nonfinite(c.y + begin * SF_D, count * SF_D);
    V high[R];
    for (int r = 0; r < R; ++r) high[r] = top[r];
    for (int j = 0; j < count; ++j) {
      const T* y = c.y + (begin + j) * SF_D;
      const T h = c.h[begin + j];
      bad |= no_weight(h);
      SF_UNROLL for (int r = 0; r < R; ++r) {
        V r2 = zero;
        SF_UNROLL for (int k = 0; k < SF_D; ++k) {
          const V d = x[r][k] - y[k];
          r2 += d * d;
        }
        t[j][r] = at_least(r2 * rate + (u[r] + h * kLog2e), lowest);
        if (!SF_PASS) high[r] = at_least(t[j][r], high[r]);
      }
    }
    V part[R][NV];
    SF_UNROLL for (int r = 0; r < R; ++r) {
      SF_UNROLL for (int k = 0; k < NV; ++k) part[r][k] = zero;
    }
    for (int j = 0; j < count; ++j) {
      SF_UNROLL for (int r = 0; r < R; ++r) {
        const V w = exp2_(SF_PASS ? t[j][r] : t[j][r] - high[r]);
        if (SF_PASS) {
          SF_UNROLL for (int k = 0; k < NV; ++k) part[r][k] += w * c.b[(begin + j) * SF_E + k];
        } else {
          part[r][0] += w;
        }
      }
    }
    if (SF_PASS) bad |= any_nonfinite(c.b + begin * SF_E, count * SF_E);
    for (int r = 0; r < R; ++r) {
      const V scale = SF_PASS ? zero + T(1) : exp2_(top[r] - high[r]);
      for (int k = 0; k < NV; ++k)
        for (int l = 0; l < W; ++l) sum[r][k][l] = sum[r][k][l] * double(scale[l]) + double(part[r][k][l]);
      top[r] = high[r];
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    const int r = int(i / W), l = int(i % W);
    const bool poison = bad || any_nonfinite(c.x + (i0 + i) * SF_D, SF_D) || (SF_PASS && no_weight(c.u[i0 + i]));
    for (int k = 0; k < NV; ++k) {
      // Nothing but zero weights: the logarithm of an empty sum.
      const bool empty = !SF_PASS && top[r][l] <= kLowest;
      const double value = SF_PASS ? sum[r][k][l] : empty ? -HUGE_VAL : (double(top[r][l]) + log2(sum[r][k][l])) / 1.4426950408889634074;
      c.v[(i0 + i) * NV + k] = poison ? not_a_number() : T(value);
    }
  }
}

// Returns 0, or 1 when memory ran out.
SF_EXPORT int shapeflow_lse(const Plan* plan, const T* sigma, const T* x, const T* u, const T* y, const T* h, const T* b, T* v,
                            int threads, const Pool* pool) {
  const Call c = {plan, sigma, x, u, y, h, b, v};
  // Items are counted over problems; an item finds its problem by bisection in the running total.
  int64_t* first = static_cast<int64_t*>(malloc(sizeof(int64_t) * (plan->problems + 1)));
  if (!first) return 1;
  first[0] = 0;
  for (int64_t p = 0; p < plan->problems; ++p) first[p + 1] = first[p] + (plan->rows[p + 1] - plan->rows[p] + TILE - 1) / TILE;
  share(first[plan->problems], threads, pool, [&](int64_t item) {
    const FlushDenormals flush;
    int64_t low = 0, high = plan->problems;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      if (first[middle] <= item) low = middle;
      else high = middle;
    }
    const int64_t row = plan->rows[low] + (item - first[low]) * TILE, left = plan->rows[low + 1] - row;
    tile(c, low, row, left < TILE ? left : int64_t(TILE));
  });
  free(first);
  return 0;
}
