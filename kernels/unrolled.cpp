// The field of a metric normalized by T steps, lambda <- sqrt(lambda / K(lambda mu)) from lambda = 1, and its derivative, but for the gradient sums,
// of which this gives the features: one matrix for the 2 T products of either way. `UnrolledMetric` of shapeflow/metric has the equations, and is
// this file's readable twin; there lambda is exp(l), here the square root is taken as it stands: lambda^2 <= 1 / (k(0) mu) neither overflows nor
// underflows.
//
// Macros: SF_REAL (float, double), SF_D (dimension of points), SF_TERMS (Name, Name, ...).
#include "each.h"

enum { D = SF_D };

// A plane for `apply`: f(i) at the points, zeros beyond.
template <class F> static inline void plane(const Dense& m, T* to, const F& f) {
  for (int64_t i = 0; i < m.stride; ++i) to[i] = i < m.n ? f(i) : T(0);
}

// lambda (N,), v (N, D); s, pulled (N, T): the sums K m_t and K c_t (t > 0); a, b (N, D + 2 T): [lambda p, -c, -m] and [lambda p, m, c].
SF_EXPORT int shapeflow_unrolled_value(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, int64_t steps, T* lambda, T* v, T* s, T* pulled,
                                       T* a, T* b, int threads, const Pool* pool) {
  const int64_t E = D + 2 * steps;
  const auto lost = [&](int64_t k, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + k, x + first * D, n, n, mu + first) || bad(p + first * D, n * D);
    if (is) lose(n, lambda + first), lose(n * D, v + first * D), lose(n * steps, s + first * steps, pulled + first * steps);
    if (is) lose(n * E, a + first * E, b + first * E);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost, [&](int64_t, const Dense& m, int64_t first) {
    T *u = m.vector(0), *y = m.vector(1), *l = m.vector(2), *z = m.vector(3);
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
  });
}

// Along (q', p' = V) with K' b = moved (N, D + 2 T): v_rate (N, D) and the features (N, 2 D + 4 T - 2) whose inner products are <a', b> + <a, b'>;
// m_0 = mu does not move.
SF_EXPORT int shapeflow_unrolled_rates(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, const T* V_, const T* lambda, const T* v,
                                       const T* s, const T* pulled, const T* features, const T* moved, int64_t steps, T* v_rate, T* a, T* b, int threads,
                                       const Pool* pool) {
  const int64_t E = D + 2 * steps, F = 2 * E - 2;
  // Rows of features are [lambda p', lambda p, -c', -m', -c, -m] and [lambda p, lambda p', m, c, m', c'], where m' and c lack t = 0; that of t is
  // number t from these on:
  const int64_t one = 2 * D, two = one + steps - 1, three = two + steps - 1, four = three + steps;
  const auto lost = [&](int64_t k, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + k, x + first * D, n, n, mu + first, lambda + first) || bad(p + first * D, n * D) || bad(V_ + first * D, n * D) ||
                    bad(v + first * D, n * D) || bad(s + first * steps, n * steps) || bad(pulled + first * steps, n * steps) ||
                    bad(features + first * E, n * E) || bad(moved + first * E, n * E);
    if (is) lose(n * D, v_rate + first * D), lose(n * F, a + first * F, b + first * F);
    return is;
  };
  return each(plan, sigma, x, threads, pool, lost, [&](int64_t, const Dense& m, int64_t first) {
    T *u = m.vector(0), *y = m.vector(1), *l_rate = m.vector(2), *z_rate = m.vector(3);
    const auto mass = [&](int64_t i, int64_t t) { return features[(first + i) * E + D + t]; };
    const auto c_of = [&](int64_t i, int64_t t) { return features[(first + i) * E + D + steps + t]; };
    const auto s_rate = [&](int64_t i, int64_t t) -> T& { return b[(first + i) * F + four + t]; };  // until c' takes its place

    for (int64_t i = 0; i < m.n; ++i) l_rate[i] = 0;
    for (int64_t t = 0; t < steps; ++t) {
      plane(m, u, [&](int64_t i) { return mass(i, t) * l_rate[i]; });
      if (t) m.apply(u, y);
      for (int64_t i = 0; i < m.n; ++i) {
        const int64_t at = first + i;
        s_rate(i, t) = moved[at * E + D + t] + (t ? y[i] : T(0));
        l_rate[i] = T(0.5) * (l_rate[i] - s_rate(i, t) / s[at * steps + t]);
        a[at * F + four + t] = -mass(i, t), b[at * F + one + t] = mass(i, t);
        if (t) a[at * F + two + t] = -u[i], b[at * F + three + t] = u[i];
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
        v_rate[k] = l_rate[i] * v[k] + lambda[at] * (moved[at * E + c] + m.out()[c * m.stride + i]);
        z_rate[i] += V_[k] * v[k] + p[k] * v_rate[k];
        a[at * F + c] = b[at * F + D + c] = m.in()[c * m.stride + i];
        a[at * F + D + c] = b[at * F + c] = features[at * E + c];
      }
    }
    for (int64_t t = steps - 1; t >= 0; --t) {
      plane(m, u, [&](int64_t i) { return (T(0.5) * z_rate[i] - c_of(i, t) * s_rate(i, t)) / s[(first + i) * steps + t]; });
      if (t) m.apply(u, y);
      for (int64_t i = 0; i < m.n; ++i) {
        const int64_t at = first + i;
        a[at * F + one + t] = -u[i], b[at * F + four + t] = u[i];
        if (!t) continue;
        a[at * F + three + t] = -c_of(i, t), b[at * F + two + t] = c_of(i, t);
        z_rate[i] = T(0.5) * z_rate[i] - b[at * F + three + t] * pulled[at * steps + t] - mass(i, t) * (moved[at * E + D + steps + t] + y[i]);
      }
    }
  });
}
