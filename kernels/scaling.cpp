// Symmetric Sinkhorn scaling and its linear systems on the CPU, for problems small enough that the kernel matrix of one fits in a core's cache.
//
// A scaling or a solve is about ten products with one matrix. Recomputing k for each costs an exponential a pair a product; here a thread fills the
// matrix once into its own scratch, iterates until this problem has converged, and forgets it: memory is n x n a thread, never a problem. Larger
// problems take the generic loops (shapeflow/normalization.py, which is also this file's readable twin).
//
// Skipped: products in single precision inside a double iteration, with exact ones to refine. Such a product takes half the time, but filling two
// matrices takes a third more, an evaluation of 1,000 points gained nothing, and what is left below the tolerance was no longer smooth in x: finite
// differences of H saw it.
//
// Macros: SF_REAL (float, double), SF_D (dimension of points), SF_TERMS (Name, Name, ...).
#include "each.h"

static double dot(const T* a, const T* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

// l with exp(l) K(exp(l) mu) = 1, starting from l; returns the last residual (docs/mathematics.md, and `sinkhorn` of normalization.py).
static SF_APART double scale(const Dense& m, const T* mu, bool cold, T* l, double alpha, double beta, double contraction, double tolerance, double rounding,
                    int steps) {
  T *before = m.vector(0), *u = m.vector(1), *y = m.vector(2);
  for (int64_t i = m.n; i < m.stride; ++i) u[i] = 0;
  if (cold) {
    for (int64_t i = 0; i < m.n; ++i) u[i] = mu[i];
    m.apply(u, y);
    for (int64_t i = 0; i < m.n; ++i) l[i] = T(-0.5) * T(log(y[i]));
  }
  for (int64_t i = 0; i < m.n; ++i) before[i] = l[i];
  double worst = INFINITY;
  for (int step = 0; step < steps; ++step) {
    for (int64_t i = 0; i < m.n; ++i) u[i] = T(exp(l[i])) * mu[i];
    m.apply(u, y);
    const double last = worst;
    worst = 0;
    for (int64_t i = 0; i < m.n; ++i) {
      const T r = l[i] + T(log(y[i])), old = l[i];
      l[i] = l[i] - T(alpha) * r + T(beta) * (l[i] - before[i]);
      before[i] = old;
      worst = absolute(r) > worst ? absolute(r) : worst;
    }
    if (contraction * worst <= tolerance || (last <= rounding && worst > 0.7 * last)) return 0;
  }
  return worst;
}

// w with (I + H K H) w = right, H = diag(half), by conjugate gradients from w.
static SF_APART void solve(const Dense& m, const T* half, const T* right, bool cold, T* w, double tolerance, int steps) {
  T *r = m.vector(0), *p = m.vector(1), *u = m.vector(2), *y = m.vector(3), *image = m.vector(4);
  const int64_t n = m.n;
  for (int64_t i = n; i < m.stride; ++i) u[i] = 0;
  const auto matrix = [&](const T* from, T* to) {
    for (int64_t i = 0; i < n; ++i) u[i] = half[i] * from[i];
    m.apply(u, y);
    for (int64_t i = 0; i < n; ++i) to[i] = from[i] + half[i] * y[i];
  };
  const double norm = dot(right, right, n);
  double square = norm;
  if (!cold) {
    matrix(w, image);
    for (int64_t i = 0; i < n; ++i) r[i] = right[i] - image[i];
    square = dot(r, r, n);
    cold = !(square < norm);  // a guess worse than none
  }
  if (cold) {
    square = norm;
    for (int64_t i = 0; i < n; ++i) w[i] = 0, r[i] = right[i];
  }
  for (int64_t i = 0; i < n; ++i) p[i] = r[i];
  const double goal = tolerance * tolerance * norm;
  for (int step = 0; step < steps && square > goal; ++step) {
    matrix(p, image);
    const T length = T(square / dot(p, image, n));
    for (int64_t i = 0; i < n; ++i) w[i] += length * p[i], r[i] -= length * image[i];
    const double fresh = dot(r, r, n);
    const T turn = T(fresh / square);
    for (int64_t i = 0; i < n; ++i) p[i] = r[i] + turn * p[i];
    square = fresh;
  }
}

// The numbers of a scaling: see `scale`, and normalization.py.
struct Numbers {
  double alpha, beta, contraction, tolerance, rounding;
  int steps;
};

static double scale_one(const Dense& m, const T* mu, int cold, T* l, const Numbers& s) {
  return scale(m, mu, cold || bad(l, m.n), l, s.alpha, s.beta, s.contraction, s.tolerance, s.rounding, s.steps);
}

// l (N,) in and out; left (B,): 0 where the tolerance was met, else the last residual.
SF_EXPORT int shapeflow_scale(const Plan* plan, const T* sigma, const T* x, const T* mu, int cold, T* l, double* left, const Numbers* numbers, int threads,
                              const Pool* pool) {
  const auto lost = [&](int64_t p, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + p, x + first * SF_D, n, n, mu + first);
    if (is) lose(n, l + first);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost,
              [&](int64_t p, const Dense& m, int64_t first) { left[p] = scale_one(m, mu + first, cold, l + first, *numbers); });
}

// w (N,) in and out.
SF_EXPORT int shapeflow_solve(const Plan* plan, const T* sigma, const T* x, const T* half, const T* right, int cold, T* w, double tolerance, int steps,
                              int threads, const Pool* pool) {
  const auto lost = [&](int64_t p, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + p, x + first * SF_D, n, n, half + first, right + first);
    if (is) lose(n, w + first);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost,
              [&](int64_t, const Dense& m, int64_t first) { solve(m, half + first, right + first, cold, w + first, tolerance, steps); });
}

// The normalized field but for its gradient sum, of which it gives the features: `SinkhornMetric.value` of shapeflow/metric, one matrix for the
// scaling, the velocity and the solve. l and u (N,) in and out: log scale, and w = sqrt(mu) u; v (N, D); a, b (N, D + 2): lambda [p, -w, -mu] and
// lambda [p, mu, w].
SF_EXPORT int shapeflow_value(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, int cold_l, T* l, double* left, const Numbers* numbers,
                              int cold_u, T* u, T* v, T* a, T* b, int threads, const Pool* pool) {
  enum { D = SF_D, E = D + 2 };
  const auto lost = [&](int64_t s, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + s, x + first * D, n, n, mu + first) || bad(p + first * D, n * D);
    if (is) lose(n, l + first, u + first), lose(n * D, v + first * D), lose(n * E, a + first * E, b + first * E);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost, [&](int64_t s, const Dense& m, int64_t first) {
    left[s] = scale_one(m, mu + first, cold_l, l + first, *numbers);
    T *half = m.vector(5), *right = m.vector(6), *lambda = m.vector(7), *root = m.vector(8);
    m.roots(l + first, mu + first, half, lambda, root);
    for (int64_t i = 0; i < m.stride; ++i)
      for (int c = 0; c < D; ++c) m.in()[c * m.stride + i] = i < m.n ? lambda[i] * p[(first + i) * D + c] : T(0);
    m.apply<D>(m.in(), m.out());
    for (int64_t i = 0; i < m.n; ++i) {
      T work = 0;
      for (int c = 0; c < D; ++c) work += p[(first + i) * D + c] * (v[(first + i) * D + c] = lambda[i] * m.out()[c * m.stride + i]);
      right[i] = work / root[i];
    }
    solve(m, half, right, cold_u, u + first, numbers->tolerance, numbers->steps);
    for (int64_t i = 0; i < m.n; ++i) {
      const int64_t at = first + i;
      const T w = root[i] * u[at];
      T *A = a + at * E, *B = b + at * E;
      for (int c = 0; c < D; ++c) A[c] = B[c] = lambda[i] * p[at * D + c];
      A[D] = -(lambda[i] * w), A[D + 1] = -(lambda[i] * mu[at]);
      B[D] = lambda[i] * mu[at], B[D + 1] = lambda[i] * w;
    }
  });
}

// What the derivative of that field along (q', p' = V) needs beside K' b = moved (N, D + 2): `SinkhornMetric.adjoint`. y and z (N,) in and out, the
// two solutions: l' = y / sqrt(mu), w' = sqrt(mu) z. Gives v' (N, D) and the features (N, 2 D + 4) whose inner products are <a', b> + <a, b'>.
SF_EXPORT int shapeflow_rates(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, const T* V_, const T* l, const T* u, const T* v,
                              const T* moved, const Numbers* numbers, int cold_y, T* y, int cold_z, T* z, T* v_rate, T* a, T* b, int threads,
                              const Pool* pool) {
  enum { D = SF_D, E = D + 2 };
  const auto lost = [&](int64_t s, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + s, x + first * D, n, n, mu + first, l + first, u + first) || bad(p + first * D, n * D) ||
                     bad(V_ + first * D, n * D) || bad(v + first * D, n * D) || bad(moved + first * E, n * E);
    if (is) lose(n, y + first, z + first), lose(n * D, v_rate + first * D), lose(2 * n * E, a + 2 * first * E, b + 2 * first * E);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost, [&](int64_t, const Dense& m, int64_t first) {
    T *half = m.vector(5), *right = m.vector(6), *lambda = m.vector(7), *root = m.vector(8);
    const int64_t n = m.n, stride = m.stride;
    m.roots(l + first, mu + first, half, lambda, root);
    for (int64_t i = 0; i < n; ++i) right[i] = -half[i] * moved[(first + i) * E + D];
    solve(m, half, right, cold_y, y + first, numbers->tolerance, numbers->steps);
    // K of lambda (l' p + V) and of lambda l' w
    for (int64_t i = 0; i < stride; ++i)
      for (int c = 0; c <= D; ++c) m.in()[c * stride + i] = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = first + i;
      const T l_rate = y[at] / root[i];
      for (int c = 0; c < D; ++c) m.in()[c * stride + i] = lambda[i] * (l_rate * p[at * D + c] + V_[at * D + c]);
      m.in()[D * stride + i] = lambda[i] * l_rate * root[i] * u[at];
    }
    m.apply<D + 1>(m.in(), m.out());
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = first + i;
      const T l_rate = y[at] / root[i];
      T work = 0, work_rate = 0;
      for (int c = 0; c < D; ++c) {
        const int64_t k = at * D + c;
        v_rate[k] = l_rate * v[k] + lambda[i] * (moved[at * E + c] + m.out()[c * stride + i]);
        work += p[k] * v[k];
        work_rate += V_[k] * v[k] + p[k] * v_rate[k];
      }
      const T averaged_w = (work - root[i] * u[at]) / mu[at];  // K~ w, known from the way there
      right[i] = (work_rate - mu[at] * (l_rate * averaged_w + lambda[i] * (moved[at * E + D + 1] + m.out()[D * stride + i]))) / root[i];
    }
    solve(m, half, right, cold_z, z + first, numbers->tolerance, numbers->steps);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = first + i;
      const T l_rate = y[at] / root[i], w = root[i] * u[at], w_rate = l_rate * w + root[i] * z[at];
      T *A = a + 2 * at * E, *B = b + 2 * at * E;  // [a', a] and [b, b']
      for (int c = 0; c < D; ++c) A[c] = B[E + c] = m.in()[c * stride + i], A[E + c] = B[c] = lambda[i] * p[at * D + c];
      A[D] = -(lambda[i] * w_rate), A[D + 1] = -(lambda[i] * mu[at] * l_rate), A[E + D] = -(lambda[i] * w), A[E + D + 1] = -(lambda[i] * mu[at]);
      B[D] = lambda[i] * mu[at], B[D + 1] = lambda[i] * w, B[E + D] = lambda[i] * mu[at] * l_rate, B[E + D + 1] = lambda[i] * w_rate;
    }
  });
}
