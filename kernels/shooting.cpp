// Geodesic shooting by the plain Hamiltonian on the CPU, and its adjoint, one call each: q' = v, p' = -g with (v, g) the fused sums at (q, p).
//
// At a few hundred points a field takes 0.1 ms. Asked for from Python, one at a time, the threads of pool.cpp would have gone to sleep before the
// next one came, and what lies between would cost as much again; here they follow each other within microseconds. The sums are the compiled `fused`
// and `tangent` of cpu.cpp or mutual.cpp, handed over as addresses: nothing is compiled a second time. shapeflow/shooting.py has the equations, and is
// this file's readable twin.
//
// Macro: SF_REAL (float, double).
#include "plan.h"
#include "threads.h"
#include <string.h>

typedef SF_REAL T;
typedef int (*Operator)(const Plan*, const T* sigma, const T* x, const T* dx, const T* a, const T* da, const T* y, const T* dy, const T* b, const T* db, T* v,
                        T* g, int64_t lda, int64_t ldb, int64_t ldv, double reach, int threads, const Pool*);

// What stays the same along a geodesic. A state, a slope and a cotangent are pairs (2, N, d), n = N d numbers each half.
struct Flow {
  Operator sums;  // fused on the way there, tangent on the way back
  const Plan* plan;
  const T* sigma;
  int64_t n, d;
  int steps, stages;
  const double *a, *b;  // Butcher tableau (stages, stages) and (stages,)
  int threads;
  const Pool* pool;
};

// out += c (f, sign g) for a pair (f, g).
static void add(int64_t n, T* out, double c, const T* pair, int sign) {
  if (c == 0) return;
  const T first = T(c), second = T(sign * c);
  for (int64_t i = 0; i < n; ++i) out[i] += first * pair[i];
  for (int64_t i = n; i < 2 * n; ++i) out[i] += second * pair[i];
}


// state (2, N, d) in and out; velocity (N, d): v at time 0; slopes: room for `stages` pairs; tape: room for one pair, or with `keep` for all steps x
// stages, which then holds the points where fields were taken. Returns 0, or 1 when memory ran out.
SF_EXPORT int shapeflow_shoot(const Flow* f, T* state, T* velocity, T* slopes, T* tape, int keep) {
  const int64_t n = f->n, pair = 2 * n, d = f->d;
  const double h = 1.0 / f->steps;
  T* at = tape;
  for (int step = 0; step < f->steps; ++step) {
    for (int k = 0; k < f->stages; ++k) {
      memcpy(at, state, pair * sizeof(T));
      for (int l = 0; l < k; ++l) add(n, at, h * f->a[k * f->stages + l], slopes + l * pair, -1);
      const T *q = at, *p = at + n;
      T *v = slopes + k * pair, *g = v + n;
      if (f->sums(f->plan, f->sigma, q, 0, p, 0, q, 0, p, 0, v, g, d, d, d, 0, f->threads, f->pool)) return 1;
      if (keep) at += pair;
    }
    if (step == 0) memcpy(velocity, slopes, n * sizeof(T));
    for (int k = 0; k < f->stages; ++k) add(n, state, h * f->b[k], slopes + k * pair, -1);
  }
  return 0;
}

// bar (2, N, d): cotangents of (q, p) at time 1 in, at time 0 out; bar_v (N, d) that of the velocity at time 0; tape of the way there; pulled: room
// for `stages` pairs, seed: for one. Returns 0, or 1 when memory ran out.
SF_EXPORT int shapeflow_pull(const Flow* f, T* bar, const T* bar_v, const T* tape, T* pulled, T* seed) {
  const int64_t n = f->n, pair = 2 * n, d = f->d;
  const double h = 1.0 / f->steps;
  for (int64_t at = int64_t(f->steps) * f->stages; at > 0;) {
    for (int k = f->stages - 1; k >= 0; --k) {
      --at;
      memset(seed, 0, pair * sizeof(T));
      add(n, seed, h * f->b[k], bar, -1);
      for (int later = f->stages - 1; later > k; --later) add(n, seed, h * f->a[later * f->stages + k], pulled + later * pair, -1);
      // The slopes were (v, -g): the cotangents of v and g are V and -h, and the pull-back is the derivative along (p' = V, q' = -h) with its two
      // results exchanged.
      if (at == 0) for (int64_t i = 0; i < n; ++i) seed[i] += bar_v[i];
      const T *V = seed, *H = seed + n, *q = tape + at * pair, *p = q + n;
      T *bar_q = pulled + k * pair, *bar_p = bar_q + n;
      if (f->sums(f->plan, f->sigma, q, H, p, V, q, H, p, V, bar_p, bar_q, d, d, d, 0, f->threads, f->pool)) return 1;
    }
    for (int k = f->stages - 1; k >= 0; --k) add(n, bar, 1, pulled + k * pair, 1);
  }
  return 0;
}
