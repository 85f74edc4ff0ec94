// Symmetric Sinkhorn scaling and its linear systems on the CPU, for problems small enough that the kernel matrix of one fits in a core's cache.
//
// A scaling or a solve is about ten products with one matrix. Recomputing k for each costs an exponential a pair a product; here a thread fills the matrix once into
// its own scratch, iterates until this problem has converged, and forgets it: memory is n x n a thread, never a problem. Larger problems take the generic loops
// (shapeflow/normalization.py, which is also this file's readable twin).
//
// Macros: SF_REAL (float, double), SF_D (dimension of points), SF_TERMS (Name, Name, ...).
#define SF_FN static inline __attribute__((always_inline))
#define SF_UNROLL _Pragma("GCC unroll 16")
#include "simd.h"
#undef SF_FN
#define SF_FN inline __attribute__((always_inline))
#include "radial.h"
#include "plan.h"
#include "threads.h"
#include <math.h>
#include <sched.h>
#include <stdlib.h>

typedef SF_REAL T;
typedef Lanes<T>::type V;
typedef Radial<T, SF_TERMS> Kernel;
// ALONE: a problem of fewer points is not shared; PATIENCE: looks at a counter, some 50 us.
enum { W = Lanes<T>::count, GROUP = 4, TILE = W < GROUP ? GROUP : W, PANEL = 64, PARTS = 4, ALONE = 256, PATIENCE = 100000 };

static inline T absolute(T a) { return a < 0 ? -a : a; }

// The threads inside one problem, where there are fewer problems than threads. Products of 50 us follow each other too closely to wake a thread for each: helpers
// enter once and look for parts to take until all is solved. The leader takes parts as well and waits for no helper that holds none; helpers that let it wait
// twice, because the machine is busy with something else, are sent home.
struct Team {
  void (*call)(const void*, int);
  const void* work;
  int next, done, entered, finished, late;  // next: the first part that nobody has taken

  template <class Work> static void invoke(const void* work, int part) { (*static_cast<const Work*>(work))(part); }

  // work(0), ..., work(PARTS - 1), by whoever comes.
  template <class Work> void share(const Work& each_part) {
    if (late >= 2) {
      for (int part = 0; part < PARTS; ++part) each_part(part);
      return;
    }
    call = invoke<Work>;
    work = &each_part;
    done = 0;
    __atomic_store_n(&next, 0, __ATOMIC_RELEASE);
    while (take()) {
    }
    int spins = 0;
    for (; __atomic_load_n(&done, __ATOMIC_ACQUIRE) < PARTS; ++spins)
      if (spins > PATIENCE) sched_yield();
    if (spins > PATIENCE && ++late == 2) __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
  }
  bool take() {
    if (__atomic_load_n(&next, __ATOMIC_RELAXED) >= PARTS) return false;
    const int part = __atomic_fetch_add(&next, 1, __ATOMIC_ACQ_REL);
    if (part >= PARTS) return false;
    call(work, part);
    __atomic_fetch_add(&done, 1, __ATOMIC_RELEASE);
    return true;
  }
  void help() {
    for (int idle = 0; !__atomic_load_n(&finished, __ATOMIC_ACQUIRE);)
      if (take()) idle = 0;
      else if (++idle > PATIENCE) sched_yield();
  }
};

// The kernel matrix of one problem and its vectors, in one aligned block. The matrix is symmetric: of a row only the columns from its own TILE on are filled and
// read, half the exponentials and half the memory. Rows and columns are padded with zeros to whole tiles.
struct Dense {
  int64_t n, stride;
  int64_t cut[PARTS + 1];  // panels of equal work; the same whatever the number of threads, and so are all sums
  Team* team;              // 0: this thread alone
  T *k, *vectors, *block;

  enum { VECTORS = 6 };

  static int64_t padded(int64_t points) { return (points + TILE - 1) / TILE * TILE; }

  // The matrix lies in `stored`, if that is given, else in memory of its own.
  bool allocate(int64_t points, Team* helped, T* stored) {
    n = points;
    team = helped;
    stride = padded(n);
    for (int p = 0; p <= PARTS; ++p) {  // rows above f stride hold 1 - (1 - f)^2 of the triangle
      const int64_t row = int64_t((1 - sqrt(1 - double(p) / PARTS)) * double(stride));
      cut[p] = p == PARTS ? stride : (row + PANEL / 2) / PANEL * PANEL;
    }
    const int64_t rows = VECTORS + SF_D + 2 * PARTS + (stored ? 0 : stride);
    block = static_cast<T*>(aligned_alloc(64, (stride * rows * sizeof(T) + 63) / 64 * 64));
    k = stored ? stored : block;
    vectors = stored ? block : block + stride * stride;
    return block != 0;
  }
  T* vector(int i) const { return vectors + i * stride; }

  template <class Work> void parts(const Work& work) const {
    if (team) team->share(work);
    else
      for (int p = 0; p < PARTS; ++p) work(p);
  }

  void fill(const Kernel& kernel, const T* x) const {
    T* plane = vector(VECTORS + 2 * PARTS);  // coordinates, one contiguous plane each
    for (int64_t j = 0; j < stride; ++j)
      for (int c = 0; c < SF_D; ++c) plane[c * stride + j] = x[(j < n ? j : n - 1) * SF_D + c];
    parts([&](int p) {
      const Kernel own = kernel;  // a copy that no store into the matrix can be taken to change
      for (int64_t i = cut[p]; i < cut[p + 1]; ++i) {
        T* row = k + i * stride;
        for (int64_t j = i / TILE * TILE; j < stride; j += W) {
          if (i >= n) {
            *(V*)(row + j) = V{};
            continue;
          }
          V r2 = {}, f0, f1, f2;
          SF_UNROLL for (int c = 0; c < SF_D; ++c) {
            const V d = *(const V*)(plane + c * stride + j) - x[i * SF_D + c];
            r2 += d * d;
          }
          own(r2, f0, f1, f2);
          *(V*)(row + j) = f0 * own.scale_v;
        }
        for (int64_t j = n; j < stride; ++j) row[j] = 0;
      }
    });
  }

  // out = K u; u has zeros beyond n, out room for them. A tile right of the diagonal serves its rows and, transposed, its columns; what columns collect is summed over
  // PANEL rows apart before it is added, so that rounding does not grow with n.
  void apply(const T* u, T* out) const {
    parts([&](int p) {
      T *sum = vector(VECTORS + 2 * p), *panel = sum + stride;
      for (int64_t j = cut[p]; j < stride; ++j) sum[j] = 0;
      for (int64_t top = cut[p]; top < cut[p + 1]; top += PANEL) rows(u, sum, panel, top, top + PANEL < cut[p + 1] ? top + PANEL : cut[p + 1]);
    });
    for (int64_t j = 0; j < stride; ++j) out[j] = vector(VECTORS)[j];
    for (int p = 1; p < PARTS; ++p)
      for (int64_t j = cut[p]; j < stride; ++j) out[j] += vector(VECTORS + 2 * p)[j];
  }

  void rows(const T* u, T* out, T* part, int64_t top, int64_t bottom) const {
    for (int64_t j = top; j < stride; ++j) part[j] = 0;
    for (int64_t i = top; i < bottom; i += GROUP) {
      const T* row = k + i * stride;
      const int64_t own = i / TILE * TILE;
      V sum[GROUP] = {}, weight[GROUP];
      SF_UNROLL for (int r = 0; r < GROUP; ++r) weight[r] = V{} + u[i + r];
      for (int64_t j = own; j < own + TILE; j += W) {
        const V v = *(const V*)(u + j);
        SF_UNROLL for (int r = 0; r < GROUP; ++r) sum[r] += *(const V*)(row + r * stride + j) * v;
      }
      for (int64_t j = own + TILE; j < stride; j += W) {
        const V v = *(const V*)(u + j);
        V column = *(const V*)(part + j);
        SF_UNROLL for (int r = 0; r < GROUP; ++r) {
          const V one = *(const V*)(row + r * stride + j);
          sum[r] += one * v;
          column += one * weight[r];
        }
        *(V*)(part + j) = column;
      }
      SF_UNROLL for (int r = 0; r < GROUP; ++r) {
        double total = 0;
        for (int l = 0; l < W; ++l) total += double(sum[r][l]);
        out[i + r] += T(total);
      }
    }
    for (int64_t j = top; j < stride; ++j) out[j] += part[j];
  }
};

static double dot(const T* a, const T* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

// l with exp(l) K(exp(l) mu) = 1, starting from l; returns the last residual (docs/mathematics.md, and `sinkhorn` of normalization.py).
static double scale(const Dense& m, const T* mu, bool cold, T* l, double alpha, double beta, double contraction, double tolerance, double rounding,
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
static void solve(const Dense& m, const T* half, const T* right, bool cold, T* w, double tolerance, int steps) {
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

static bool nonfinite(const T* sigma, const T* x, const T* a, const T* b, int64_t n) {
  return !(*sigma > 0) || any_nonfinite(sigma, 1) || any_nonfinite(x, n * SF_D) || any_nonfinite(a, n) || (b && any_nonfinite(b, n));
}

// For every problem, its matrix and `work(problem, matrix, first row)`; 1 when memory ran out. Matrices that are `stored`, one after the other, may be `filled` already. A problem that is not finite gets NaN in `out`. Threads are one
// to a problem, or all in one problem after the other when there are more threads than problems.
template <class Work>
static int each(const Plan* plan, const T* sigma, const T* x, const T* a, const T* b, T* out, T* stored, int filled, int threads, Parallel parallel,
                const Work& work) {
  int failed = 0;
  const auto one = [&](int64_t p, Team* team) {
    const int64_t first = plan->rows[p], n = plan->rows[p + 1] - first;
    if (n == 0) return;
    if (nonfinite(sigma + p, x + first * SF_D, a + first, b ? b + first : 0, n)) {
      for (int64_t i = 0; i < n; ++i) out[first + i] = sizeof(T) == 4 ? T(__builtin_nanf("")) : T(__builtin_nan(""));
      return;
    }
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
    work(p, m, first);
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

#define SF_EXPORT extern "C" __attribute__((visibility("default")))

// l (N,) in and out; left (B,): 0 where the tolerance was met, else the last residual.
SF_EXPORT int shapeflow_scale(const Plan* plan, const T* sigma, const T* x, const T* mu, int cold, T* l, double* left, double alpha, double beta,
                              double contraction, double tolerance, double rounding, int steps, T* stored, int filled, int threads,
                              Parallel parallel) {
  return each(plan, sigma, x, mu, 0, l, stored, filled, threads, parallel, [&](int64_t p, const Dense& m, int64_t first) {
    left[p] = scale(m, mu + first, cold || any_nonfinite(l + first, m.n), l + first, alpha, beta, contraction, tolerance, rounding, steps);
  });
}

// w (N,) in and out.
SF_EXPORT int shapeflow_solve(const Plan* plan, const T* sigma, const T* x, const T* half, const T* right, int cold, T* w, double tolerance, int steps,
                              T* stored, int filled, int threads, Parallel parallel) {
  return each(plan, sigma, x, half, right, w, stored, filled, threads, parallel,
              [&](int64_t, const Dense& m, int64_t first) { solve(m, half + first, right + first, cold, w + first, tolerance, steps); });
}

// out = K b for e features, each a row of its own (e, N) in b and out; a problem that is not finite leaves its part of `out` as it was.
SF_EXPORT int shapeflow_apply(const Plan* plan, const T* sigma, const T* x, const T* b, int64_t e, T* out, T* scratch, T* stored, int filled, int threads,
                              Parallel parallel) {
  const int64_t total = plan->rows[plan->problems];
  return each(plan, sigma, x, b, 0, scratch, stored, filled, threads, parallel, [&](int64_t, const Dense& m, int64_t first) {
    T *u = m.vector(0), *y = m.vector(1);
    for (int64_t i = m.n; i < m.stride; ++i) u[i] = 0;
    for (int64_t k = 0; k < e; ++k) {
      for (int64_t i = 0; i < m.n; ++i) u[i] = b[k * total + first + i];
      m.apply(u, y);
      for (int64_t i = 0; i < m.n; ++i) out[k * total + first + i] = y[i];
    }
  });
}
