// Symmetric Sinkhorn scaling and its linear systems on the CPU, for problems small enough that the kernel matrix of one fits in a core's cache.
//
// A scaling or a solve is about ten products with one matrix. Recomputing k for each costs an exponential a pair a product; here a thread fills the
// matrix once into its own scratch, iterates until this problem has converged, and forgets it: memory is n x n a thread, never a problem. Larger
// problems take the generic loops (shapeflow/normalization.py, which is also this file's readable twin).
//
// Skipped: products in single precision inside a double iteration, with exact ones to refine. Such a product takes half the time, but filling two
// matrices takes a third more, an evaluation of 1,000 points gained nothing, and what is left below the tolerance was no longer smooth in x: finite
// differences of H saw it. Nor do solves gain from what earlier ones with the same matrix found out: with all their conjugate directions kept and projected
// out, and Newton's method for the scaling so that it leaves some, 1,000 points took 43.8 products a field instead of 44.3.
//
// Macros: SF_REAL (float, double), SF_D (dimension of points), SF_TERMS (Name, Name, ...).
#define SF_UNROLL _Pragma("GCC unroll 32")
#include "each.h"
#include "explog.h"

static double dot(const T* a, const T* b, int64_t n) {
  double lane[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    SF_UNROLL for (int k = 0; k < 8; ++k) lane[k] += double(a[i + k]) * double(b[i + k]);
  for (; i < n; ++i) lane[0] += double(a[i]) * double(b[i]);
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// The numbers of a scaling: see `scale`, and normalization.py.
struct Numbers {
  double alpha, beta, contraction, tolerance, rounding;
  int steps;
};

// l with exp(l) K(exp(l) mu) = 1, starting from l where that is finite; returns 0, or the last residual of what missed the tolerance (docs/mathematics.md,
// and `sinkhorn` of normalization.py). Beyond n, l and mu are zero, and K(exp(l) mu) is taken to be one.
static SF_APART double scale(const Dense& m, const T* mu, bool cold, T* l, const Numbers& s) {
  cold |= bad(l, m.n);
  T *before = m.vector(0), *u = m.vector(1), *y = m.vector(2), *now = m.vector(3), *mass = m.vector(4);
  const auto at = [](T* vector, int64_t i) -> V& { return *(V*)(vector + i); };
  const auto product = [&] {
    m.apply(u, y);
    for (int64_t i = m.n; i < m.stride; ++i) y[i] = 1;
  };
  for (int64_t i = 0; i < m.stride; ++i) now[i] = i < m.n ? l[i] : T(0), mass[i] = i < m.n ? mu[i] : T(0);
  if (cold) {
    for (int64_t i = 0; i < m.stride; ++i) u[i] = mass[i];
    product();
    for (int64_t i = 0; i < m.stride; i += W) at(now, i) = log_(at(y, i)) * T(-0.5);
  }
  for (int64_t i = 0; i < m.stride; ++i) before[i] = now[i];
  double worst = INFINITY;
  bool missed = true;
  for (int step = 0; step < s.steps && missed; ++step) {
    for (int64_t i = 0; i < m.stride; i += W) at(u, i) = exp_(at(now, i)) * at(mass, i);
    product();
    for (int64_t i = 0; i < m.stride; i += W) at(y, i) = at(now, i) + log_(at(y, i));
    const double last = worst;
    worst = 0;
    for (int64_t i = 0; i < m.n; ++i) {
      const T r = y[i], old = now[i];
      now[i] = old - T(s.alpha) * r + T(s.beta) * (old - before[i]);
      before[i] = old;
      worst = absolute(r) > worst ? absolute(r) : worst;
    }
    missed = !(s.contraction * worst <= s.tolerance || (last <= s.rounding && worst > 0.7 * last));
  }
  for (int64_t i = 0; i < m.n; ++i) l[i] = now[i];
  return missed ? worst : 0;
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

// l (N,) in and out; left (B,): 0 where the tolerance was met, else the last residual.
SF_EXPORT int shapeflow_scale(const Plan* plan, const T* sigma, const T* x, const T* mu, int cold, T* l, double* left, const Numbers* numbers, int threads,
                              const Pool* pool) {
  const auto lost = [&](int64_t p, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + p, x + first * SF_D, n, n, mu + first);
    if (is) lose(n, l + first);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost,
              [&](int64_t p, const Dense& m, int64_t first) {
                m.fill();
                left[p] = scale(m, mu + first, cold, l + first, *numbers);
                return true;
              });
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
              [&](int64_t, const Dense& m, int64_t first) {
                m.fill();
                solve(m, half + first, right + first, cold, w + first, tolerance, steps);
                return true;
              });
}

// The normalized field: `SinkhornMetric.value` of shapeflow/metric, one matrix for the scaling, the velocity, the solve and the gradient. l and u (N,)
// in and out: log scale, and w = sqrt(mu) u; v, g (N, D); a, b (N, D + 2): lambda [p, -w, -mu] and lambda [p, mu, w].
SF_EXPORT int shapeflow_value(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, int cold_l, T* l, double* left, const Numbers* numbers,
                              int cold_u, T* u, T* v, T* a, T* b, T* g, int threads, const Pool* pool) {
  enum { D = SF_D, E = D + 2 };
  const auto lost = [&](int64_t s, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + s, x + first * D, n, n, mu + first) || bad(p + first * D, n * D);
    if (is) lose(n, l + first, u + first), lose(n * D, v + first * D, g + first * D), lose(n * E, a + first * E, b + first * E);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost, [&](int64_t s, const Dense& m, int64_t first) {
    m.fill();
    left[s] = scale(m, mu + first, cold_l, l + first, *numbers);
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
    return m.sum<GRADIENT, E, READ>(0, a + first * E, b + first * E, 0, g + first * D);
  });
}

// The derivative of that field along (q' = h, p' = V): `SinkhornMetric.adjoint`. y and z (N,) in and out, the two solutions: l' = y / sqrt(mu),
// w' = sqrt(mu) z. Gives v' and g' (N, D). The kernel moving comes first, and leaves the matrix for what follows.
SF_EXPORT int shapeflow_rates(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, const T* h_, const T* V_, const T* l, const T* u,
                              const T* v, const T* a, const T* b, const Numbers* numbers, int cold_y, T* y, int cold_z, T* z, T* v_rate, T* g_rate,
                              int threads, const Pool* pool) {
  enum { D = SF_D, E = D + 2 };
  const auto lost = [&](int64_t s, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + s, x + first * D, n, n, mu + first, l + first, u + first) || bad(p + first * D, n * D) ||
                    bad(h_ + first * D, n * D) || bad(V_ + first * D, n * D) || bad(v + first * D, n * D) || bad(a + first * E, n * E);
    if (is) lose(n, y + first, z + first), lose(n * D, v_rate + first * D, g_rate + first * D);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost, [&](int64_t, const Dense& m, int64_t first) {
    const int64_t n = m.n, stride = m.stride;
    // K' b, g of the kernel moving, and the features [a', a] and [b, b'], whose inner products are <a', b> + <a, b'>
    const Borrowed memory(pool, (5 * E + D) * n);
    if (!memory.first) return false;
    T *moved = memory.first, *twice_a = moved + E * n, *twice_b = twice_a + 2 * E * n, *g_kernel = twice_b + 2 * E * n;
    if (!m.sum<TANGENT, E, KEPT>(h_ + first * D, a + first * E, b + first * E, moved, g_kernel)) return false;
    T *half = m.vector(5), *right = m.vector(6), *lambda = m.vector(7), *root = m.vector(8);
    m.roots(l + first, mu + first, half, lambda, root);
    for (int64_t i = 0; i < n; ++i) right[i] = -half[i] * moved[i * E + D];
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
        v_rate[k] = l_rate * v[k] + lambda[i] * (moved[i * E + c] + m.out()[c * stride + i]);
        work += p[k] * v[k];
        work_rate += V_[k] * v[k] + p[k] * v_rate[k];
      }
      const T averaged_w = (work - root[i] * u[at]) / mu[at];  // K~ w, known from the way there
      right[i] = (work_rate - mu[at] * (l_rate * averaged_w + lambda[i] * (moved[i * E + D + 1] + m.out()[D * stride + i]))) / root[i];
    }
    solve(m, half, right, cold_z, z + first, numbers->tolerance, numbers->steps);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = first + i;
      const T l_rate = y[at] / root[i], w_rate = l_rate * root[i] * u[at] + root[i] * z[at];
      T *A = twice_a + 2 * E * i, *B = twice_b + 2 * E * i;
      for (int c = 0; c < D; ++c) A[c] = B[E + c] = m.in()[c * stride + i];
      A[D] = -(lambda[i] * w_rate), A[D + 1] = -(lambda[i] * mu[at] * l_rate);
      B[E + D] = lambda[i] * mu[at] * l_rate, B[E + D + 1] = lambda[i] * w_rate;
      for (int c = 0; c < E; ++c) A[E + c] = a[at * E + c], B[c] = b[at * E + c];
    }
    if (!m.sum<GRADIENT, 2 * E, READ>(0, twice_a, twice_b, 0, g_rate + first * D)) return false;
    for (int64_t k = 0; k < n * D; ++k) g_rate[first * D + k] += g_kernel[k];
    return true;
  });
}
