// The field of a metric normalized by T steps, lambda <- sqrt(lambda / K(lambda mu)) from lambda = 1, and its derivative: one matrix for the 2 T products
// of either way and for the gradient sums. `UnrolledMetric` of shapeflow/metric has the equations, and is this file's readable twin; there lambda is
// exp(l), here the square root is taken as it stands: lambda^2 <= 1 / (k(0) mu) neither overflows nor underflows.
//
// Macros: SF_REAL (float, double), SF_D (dimension of points), SF_STEPS (T), SF_TERMS (Name, Name, ...).
#define SF_UNROLL _Pragma("GCC unroll 32")
#include "each.h"

// E features of the field, F of its derivative, where m_0 = mu does not move and c_0 pairs with it alone
enum { D = SF_D, STEPS = SF_STEPS, E = D + 2 * STEPS, F = 2 * E - 2 };

// A plane for `apply`: f(i) at the points, zeros beyond.
template <class F> static inline void plane(const Dense& m, T* to, const F& f) {
  for (int64_t i = 0; i < m.stride; ++i) to[i] = i < m.n ? f(i) : T(0);
}

// lambda (N,), v, g (N, D); s, pulled (N, T): the sums K m_t and K c_t (t > 0); a, b (N, D + 2 T): [lambda p, -c, -m] and [lambda p, m, c].
SF_EXPORT int shapeflow_unrolled_value(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, T* lambda, T* v, T* s, T* pulled, T* a, T* b,
                                       T* g, int threads, const Pool* pool) {
  enum { steps = STEPS };
  const auto lost = [&](int64_t k, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + k, x + first * D, n, n, mu + first) || bad(p + first * D, n * D);
    if (is) lose(n, lambda + first), lose(n * D, v + first * D, g + first * D);
    if (is) lose(n * steps, s + first * steps, pulled + first * steps), lose(n * E, a + first * E, b + first * E);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost, [&](int64_t, const Dense& m, int64_t first) {
    T *u = m.vector(0), *y = m.vector(1), *l = m.vector(2), *z = m.vector(3);
    m.fill();
    for (int64_t i = 0; i < m.n; ++i) l[i] = 1;
    for (int64_t t = 0; t < steps; ++t) {
      plane(m, u, [&](int64_t i) { return l[i] * mu[first + i]; });
      m.apply(u, y);
      for (int64_t i = 0; i < m.n; ++i) {
        const int64_t at = first + i;
        b[at * E + D + t] = u[i], a[at * E + D + steps + t] = -u[i];
        s[at * steps + t] = y[i];
        l[i] = T(sqrt(l[i] / y[i]));
      }
    }
    for (int c = 0; c < D; ++c) plane(m, m.in() + c * m.stride, [&](int64_t i) { return l[i] * p[(first + i) * D + c]; });
    m.apply<D>(m.in(), m.out());
    for (int64_t i = 0; i < m.n; ++i) {
      const int64_t at = first + i;
      lambda[at] = l[i];
      z[i] = 0;
      for (int c = 0; c < D; ++c) {
        a[at * E + c] = b[at * E + c] = m.in()[c * m.stride + i];
        z[i] += p[at * D + c] * (v[at * D + c] = l[i] * m.out()[c * m.stride + i]);
      }
    }
    for (int64_t t = steps - 1; t >= 0; --t) {
      plane(m, u, [&](int64_t i) { return T(0.5) * z[i] / s[(first + i) * steps + t]; });
      if (t) m.apply(u, y);  // l_0 is no unknown
      for (int64_t i = 0; i < m.n; ++i) {
        const int64_t at = first + i;
        a[at * E + D + t] = -u[i], b[at * E + D + steps + t] = u[i];
        pulled[at * steps + t] = t ? y[i] : T(0);
        z[i] = T(0.5) * z[i] - b[at * E + D + t] * pulled[at * steps + t];
      }
    }
    return m.sum<GRADIENT, E, READ>(0, a + first * E, b + first * E, 0, g + first * D);
  });
}

// The derivative along (q' = h, p' = V): v_rate, g_rate (N, D). The kernel moving comes first, and leaves the matrix for what follows.
SF_EXPORT int shapeflow_unrolled_rates(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, const T* h_, const T* V_, const T* lambda,
                                       const T* v, const T* s, const T* pulled, const T* a, const T* b, T* v_rate, T* g_rate, int threads,
                                       const Pool* pool) {
  enum { steps = STEPS };
  // Rows of features are [lambda p', lambda p, -c', -m', -c, -m] and [lambda p, lambda p', m, c, m', c'], where m' and c lack t = 0; that of t is
  // number t from these on:
  const int64_t one = 2 * D, two = one + steps - 1, three = two + steps - 1, four = three + steps;
  const auto lost = [&](int64_t k, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + k, x + first * D, n, n, mu + first, lambda + first) || bad(p + first * D, n * D) || bad(V_ + first * D, n * D) ||
                    bad(v + first * D, n * D) || bad(s + first * steps, n * steps) || bad(pulled + first * steps, n * steps) ||
                    bad(h_ + first * D, n * D) || bad(a + first * E, n * E) || bad(b + first * E, n * E);
    if (is) lose(n * D, v_rate + first * D, g_rate + first * D);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost, [&](int64_t, const Dense& m, int64_t first) {
    // K' b, g of the kernel moving, and the features [a', a] and [b, b'], whose inner products are <a', b> + <a, b'>
    const Borrowed memory(pool, (E + 2 * F + D) * m.n);
    if (!memory.first) return false;
    T *moved = memory.first, *twice_a = moved + E * m.n, *twice_b = twice_a + F * m.n, *g_kernel = twice_b + F * m.n;
    if (!m.sum<TANGENT, E, KEPT>(h_ + first * D, a + first * E, b + first * E, moved, g_kernel)) return false;
    T *u = m.vector(0), *y = m.vector(1), *l_rate = m.vector(2), *z_rate = m.vector(3);
    const auto mass = [&](int64_t i, int64_t t) { return b[(first + i) * E + D + t]; };
    const auto c_of = [&](int64_t i, int64_t t) { return b[(first + i) * E + D + steps + t]; };
    const auto s_rate = [&](int64_t i, int64_t t) -> T& { return twice_b[i * F + four + t]; };  // until c' takes its place

    for (int64_t i = 0; i < m.n; ++i) l_rate[i] = 0;
    for (int64_t t = 0; t < steps; ++t) {
      plane(m, u, [&](int64_t i) { return mass(i, t) * l_rate[i]; });
      if (t) m.apply(u, y);
      for (int64_t i = 0; i < m.n; ++i) {
        const int64_t at = first + i;
        s_rate(i, t) = moved[i * E + D + t] + (t ? y[i] : T(0));
        l_rate[i] = T(0.5) * (l_rate[i] - s_rate(i, t) / s[at * steps + t]);
        twice_a[i * F + four + t] = -mass(i, t), twice_b[i * F + one + t] = mass(i, t);
        if (t) twice_a[i * F + two + t] = -u[i], twice_b[i * F + three + t] = u[i];
      }
    }
    for (int c = 0; c < D; ++c)
      plane(m, m.in() + c * m.stride, [&](int64_t i) {
        const int64_t k = (first + i) * D + c;
        return lambda[first + i] * (l_rate[i] * p[k] + V_[k]);
      });
    m.apply<D>(m.in(), m.out());
    for (int64_t i = 0; i < m.n; ++i) {
      const int64_t at = first + i;
      z_rate[i] = 0;
      for (int c = 0; c < D; ++c) {
        const int64_t k = at * D + c;
        v_rate[k] = l_rate[i] * v[k] + lambda[at] * (moved[i * E + c] + m.out()[c * m.stride + i]);
        z_rate[i] += V_[k] * v[k] + p[k] * v_rate[k];
        twice_a[i * F + c] = twice_b[i * F + D + c] = m.in()[c * m.stride + i];
        twice_a[i * F + D + c] = twice_b[i * F + c] = b[at * E + c];
      }
    }
    for (int64_t t = steps - 1; t >= 0; --t) {
      plane(m, u, [&](int64_t i) { return (T(0.5) * z_rate[i] - c_of(i, t) * s_rate(i, t)) / s[(first + i) * steps + t]; });
      if (t) m.apply(u, y);
      for (int64_t i = 0; i < m.n; ++i) {
        const int64_t at = first + i;
        twice_a[i * F + one + t] = -u[i], twice_b[i * F + four + t] = u[i];
        if (!t) continue;
        twice_a[i * F + three + t] = -c_of(i, t), twice_b[i * F + two + t] = c_of(i, t);
        z_rate[i] = T(0.5) * z_rate[i] - twice_b[i * F + three + t] * pulled[at * steps + t] - mass(i, t) * (moved[i * E + D + steps + t] + y[i]);
      }
    }
    if (!m.sum<GRADIENT, F, READ>(0, twice_a, twice_b, 0, g_rate + first * D)) return false;
    for (int64_t k = 0; k < m.n * D; ++k) g_rate[first * D + k] += g_kernel[k];
    return true;
  });
}
