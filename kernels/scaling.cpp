// Symmetric Sinkhorn scaling and its linear systems on the CPU, for problems small enough that the kernel matrix of one fits in a core's cache.
//
// A scaling or a solve is about ten products with one matrix. Recomputing k for each costs an exponential a pair a product; here a thread fills the matrix once into
// its own scratch, iterates until this problem has converged, and forgets it: memory is n x n a thread, never a problem. Larger problems take the generic loops
// (shapeflow/normalization.py, which is also this file's readable twin).
//
// Macros: SF_REAL (float, double), SF_D (dimension of points), SF_TERMS (Name, Name, ...).
#include "dense.h"

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

static SF_APART bool bad(const T* numbers, int64_t count) { return any_nonfinite(numbers, count); }
static SF_APART void fill_nan(T* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = sizeof(T) == 4 ? T(__builtin_nanf("")) : T(__builtin_nan(""));
}

// Whether a problem's width, points or `count` numbers of each of the others are not finite.
template <class... Given> static bool nonfinite(const T* sigma, const T* x, int64_t n, int64_t count, const Given*... others) {
  return !(*sigma > 0) || bad(sigma, 1) || bad(x, n * SF_D) || (bad(others, count) || ...);
}
template <class... Out> static void lose(int64_t count, Out*... out) { (fill_nan(out, count), ...); }

// What is done with every problem, by address: the frame around it is compiled once.
struct Task {
  const void* self;
  bool (*lost)(const void*, int64_t, int64_t, int64_t);
  void (*work)(const void*, int64_t, const Dense&, int64_t);
};
static SF_APART int each_task(const Plan* plan, const T* sigma, const T* x, T* stored, int filled, int threads, Parallel parallel, const Task& task) {
  int failed = 0;
  const auto one = [&](int64_t p, Team* team) {
    const int64_t first = plan->rows[p], n = plan->rows[p + 1] - first;
    if (n == 0 || task.lost(task.self, p, first, n)) return;
    const FlushDenormals flush;
    Dense m;
    T* place = stored;
    for (int64_t before = 0; stored && before < p; ++before) {
      const int64_t side = Dense::padded(plan->rows[before + 1] - plan->rows[before]);
      place += side * side;
    }
    if (!m.allocate(n, team, place)) {
      __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
      return;
    }
    Kernel kernel;
    kernel.set(double(sigma[p]), plan->weights, plan->ratios, plan->epsilon);
    if (!filled) m.fill(kernel, x + first * SF_D);
    task.work(task.self, p, m, first);
    free(m.block);
  };
  if (threads <= plan->problems || !parallel) {
    share(plan->problems, threads, parallel, [&](int64_t p) { one(p, 0); });
    return failed;
  }
  const auto lead = [&](Team* team) {
    for (int64_t p = 0; p < plan->problems; ++p) one(p, plan->rows[p + 1] - plan->rows[p] < ALONE ? 0 : team);
  };
  struct Entry {
    Team team;
    const decltype(lead)* all;
    static void run(void* self) {
      Entry* e = static_cast<Entry*>(self);
      if (__atomic_fetch_add(&e->team.entered, 1, __ATOMIC_ACQ_REL)) {
        const FlushDenormals flush;
        e->team.help();
        return;
      }
      (*e->all)(&e->team);
      __atomic_store_n(&e->team.finished, 1, __ATOMIC_RELEASE);
    }
  } entry = {{0, 0, PARTS, 0, 0, 0, 0}, &lead};
  parallel(Entry::run, &entry, unsigned(threads < PARTS ? threads : PARTS));
  return failed;
}

// For every problem that is not `lost(problem, first row, points)`: its matrix, and `work(problem, matrix, first row)`; 1 when memory ran out. Matrices that are
// `stored`, one after the other, may be `filled` already. Threads are one to a problem, or all in one problem after the other when there are more threads than problems.
template <class Lost, class Work>
static int each(const Plan* plan, const T* sigma, const T* x, T* stored, int filled, int threads, Parallel parallel, const Lost& lost, const Work& work) {
  struct Both {
    const Lost& lost;
    const Work& work;
    static bool is_lost(const void* self, int64_t p, int64_t first, int64_t n) { return static_cast<const Both*>(self)->lost(p, first, n); }
    static void run(const void* self, int64_t p, const Dense& m, int64_t first) { static_cast<const Both*>(self)->work(p, m, first); }
  } both = {lost, work};
  return each_task(plan, sigma, x, stored, filled, threads, parallel, {&both, Both::is_lost, Both::run});
}

#define SF_EXPORT extern "C" __attribute__((visibility("default")))

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
                              Parallel parallel) {
  const auto lost = [&](int64_t p, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + p, x + first * SF_D, n, n, mu + first);
    if (is) lose(n, l + first);
    return is;
  };
  return each(plan, sigma, x, 0, 0, threads, parallel, lost,
              [&](int64_t p, const Dense& m, int64_t first) { left[p] = scale_one(m, mu + first, cold, l + first, *numbers); });
}

// w (N,) in and out.
SF_EXPORT int shapeflow_solve(const Plan* plan, const T* sigma, const T* x, const T* half, const T* right, int cold, T* w, double tolerance, int steps,
                              int threads, Parallel parallel) {
  const auto lost = [&](int64_t p, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + p, x + first * SF_D, n, n, half + first, right + first);
    if (is) lose(n, w + first);
    return is;
  };
  return each(plan, sigma, x, 0, 0, threads, parallel, lost,
              [&](int64_t, const Dense& m, int64_t first) { solve(m, half + first, right + first, cold, w + first, tolerance, steps); });
}

// out = K b for e features (N, e).
SF_EXPORT int shapeflow_apply(const Plan* plan, const T* sigma, const T* x, const T* b, int64_t e, T* out, T* stored, int filled, int threads,
                              Parallel parallel) {
  const auto lost = [&](int64_t p, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + p, x + first * SF_D, n, n * e, b + first * e);
    if (is) lose(n * e, out + first * e);
    return is;
  };
  return each(plan, sigma, x, stored, filled, threads, parallel, lost, [&](int64_t, const Dense& m, int64_t first) {
    enum { MANY = Dense::MANY };
    for (int64_t k = 0; k < e; k += MANY) {
      const int64_t count = e - k < MANY ? e - k : int64_t(MANY);
      for (int64_t c = 0; c < count; ++c)
        for (int64_t i = 0; i < m.stride; ++i) m.in()[c * m.stride + i] = i < m.n ? b[(first + i) * e + k + c] : T(0);
      if (count == MANY) m.apply<MANY>(m.in(), m.out());
      else if (count == SF_D) m.apply<SF_D>(m.in(), m.out());
      else
        for (int64_t c = 0; c < count; ++c) m.apply(m.in() + c * m.stride, m.out() + c * m.stride);
      for (int64_t c = 0; c < count; ++c)
        for (int64_t i = 0; i < m.n; ++i) out[(first + i) * e + k + c] = m.out()[c * m.stride + i];
    }
  });
}

// The normalized field but for its gradient sum, of which it gives the features: `SinkhornMetric.value` of shapeflow/metric, one matrix for the scaling, the velocity and
// the solve. l and u (N,) in and out: log scale, and w = sqrt(mu) u; v (N, D); a, b (N, D + 2): lambda [p, -w, -mu] and lambda [p, mu, w].
SF_EXPORT int shapeflow_value(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, int cold_l, T* l, double* left, const Numbers* numbers,
                              int cold_u, T* u, T* v, T* a, T* b, int threads, Parallel parallel) {
  enum { D = SF_D, E = D + 2 };
  const auto lost = [&](int64_t s, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + s, x + first * D, n, n, mu + first) || bad(p + first * D, n * D);
    if (is) lose(n, l + first, u + first), lose(n * D, v + first * D), lose(n * E, a + first * E, b + first * E);
    return is;
  };
  return each(plan, sigma, x, 0, 0, threads, parallel, lost, [&](int64_t s, const Dense& m, int64_t first) {
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

// What the derivative of that field along (q', p' = V) needs beside K' b = moved (N, D + 2): `SinkhornMetric.adjoint`. y and z (N,) in and out, the two solutions:
// l' = y / sqrt(mu), w' = sqrt(mu) z. Gives v' (N, D) and the features (N, 2 D + 4) whose inner products are <a', b> + <a, b'>.
SF_EXPORT int shapeflow_rates(const Plan* plan, const T* sigma, const T* x, const T* mu, const T* p, const T* V_, const T* l, const T* u, const T* v,
                              const T* moved, const Numbers* numbers, int cold_y, T* y, int cold_z, T* z, T* v_rate, T* a, T* b, int threads,
                              Parallel parallel) {
  enum { D = SF_D, E = D + 2 };
  const auto lost = [&](int64_t s, int64_t first, int64_t n) {
    const bool is = nonfinite(sigma + s, x + first * D, n, n, mu + first, l + first, u + first) || bad(p + first * D, n * D) ||
                     bad(V_ + first * D, n * D) || bad(v + first * D, n * D) || bad(moved + first * E, n * E);
    if (is) lose(n, y + first, z + first), lose(n * D, v_rate + first * D), lose(2 * n * E, a + 2 * first * E, b + 2 * first * E);
    return is;
  };
  return each(plan, sigma, x, 0, 0, threads, parallel, lost, [&](int64_t, const Dense& m, int64_t first) {
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
