// The kernel matrix of one problem, kept for as long as it is multiplied by, and the threads inside one problem.
//
// Macros: SF_REAL (float, double), SF_D (dimension of points), SF_TERMS (Name, Name, ...).
#pragma once
#include "mutual.h"
#include <math.h>
#include <sched.h>

// What is called from many places is compiled once: inlined everywhere, this file would take four seconds instead of one.
#define SF_APART __attribute__((noinline))

// ALONE: a problem of fewer points is not shared; PATIENCE: looks at a counter, some 50 us.
enum { W = Half::W, GROUP = Half::ROWS, TILE = Half::TILE, PANEL = 64, PARTS = 4, ALONE = 256, PATIENCE = 100000 };

static inline T absolute(T a) { return a < 0 ? -a : a; }

// The threads inside one problem, where there are fewer problems than threads. Products of 50 us follow each other too closely to wake a thread for
// each: helpers enter once and look for parts to take until all is solved. The leader takes parts as well and waits for no helper that holds none;
// helpers that let it wait twice, because the machine is busy with something else, are sent home.
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

// The kernel matrix of one problem, but for a factor `kernel.scale_v`, and its vectors, in one aligned block. Rows and columns are padded with zeros to
// whole tiles.
struct Dense {
  int64_t n, stride;
  int64_t cut[PARTS + 1];  // rows of equal work; the same whatever the number of threads, and so are all sums
  Team* team;              // 0: this thread alone
  const Pool* pool;
  Kernel kernel;
  const T* x;  // (n, D)
  Half k;
  T *vectors, *block;

  enum { VECTORS = 9, MANY = SF_D + 1 };

  bool allocate(const Kernel& radial, const T* points, int64_t count, Team* helped, const Pool* memory) {
    kernel = radial;
    x = points;
    n = count;
    team = helped;
    pool = memory;
    stride = (n + TILE - 1) / TILE * TILE;
    for (int p = 0; p <= PARTS; ++p) cut[p] = triangle_cut(p, PARTS, stride, TILE);
    const int64_t rows = VECTORS + 2 * MANY + SF_D + 2 * MANY * PARTS;
    block = static_cast<T*>(pool->borrow((Half::size(stride) + stride * rows) * sizeof(T)));
    k = {block, stride};
    vectors = block + Half::size(stride);
    return block != 0;
  }
  T* vector(int i) const { return vectors + i * stride; }
  void roots(const T* l, const T* mu, T* half, T* lambda, T* root) const {
    for (int64_t i = 0; i < n; ++i) {
      lambda[i] = T(exp(l[i]));
      root[i] = T(sqrt(mu[i]));
      half[i] = root[i] * lambda[i];
    }
  }
  // What goes into several products at once and what comes out, MANY planes each; and what a part of the matrix sums, twice as many.
  T* in() const { return vector(VECTORS); }
  T* out() const { return vector(VECTORS + MANY); }
  T* sums(int part) const { return vector(VECTORS + 2 * MANY + SF_D + 2 * MANY * part); }

  template <class Work> void parts(const Work& work) const {
    if (team) team->share(work);
    else
      for (int p = 0; p < PARTS; ++p) work(p);
  }

  SF_APART void fill() const {
    T* plane = vector(VECTORS + 2 * MANY);  // coordinates, one contiguous plane each
    for (int64_t j = 0; j < stride; ++j)
      for (int c = 0; c < SF_D; ++c) plane[c * stride + j] = x[(j < n ? j : n - 1) * SF_D + c];
    parts([&](int p) {
      const Kernel own_kernel = kernel;  // a copy that no store into the matrix can be taken to change
      for (int64_t i = cut[p]; i < cut[p + 1]; ++i) {
        const int64_t own = i / TILE * TILE;
        T* to = k.at(i, own);
        for (int64_t j = own; j < stride; j += W, to += Half::NEXT_VECTOR) {
          V r2 = {}, f0, f1, f2;
          SF_UNROLL for (int c = 0; c < SF_D; ++c) {
            const V d = *(const V*)(plane + c * stride + j) - plane[c * stride + i];
            r2 += d * d;
          }
          own_kernel(r2, f0, f1, f2);
          *(V*)to = f0;
        }
      }
    });
    clear();
  }
  // Zeros beyond n.
  void clear() const {
    for (int64_t i = 0; i < stride; ++i)
      for (int64_t j = i < n ? n : i / TILE * TILE; j < stride; ++j) k.entry(i, j) = 0;
  }

  // A sum of mutual.h over these points, which leaves its values of the kernel in the matrix (KEPT) or takes them from there (READ): v (n, E), g (n, D)
  // from features a, b (n, E), for a tangent along dx (n, D). Returns whether there was memory.
  template <int OP, int E, Values VALUES> SF_APART bool sum(const T* dx, const T* a, const T* b, T* v, T* g) const {
    typedef Mutual<OP, E, OP == TANGENT ? HAS_DX | HAS_DY : 0, VALUES> Sum;
    Sum all;
    if (!all.begin({x, dx, a, 0, b, 0}, kernel, n, PARTS, pool, k)) return false;
    parts([&](int p) { all.part(p); });
    parts([&](int p) {
      for (int c = p; c < Sum::OUT; c += PARTS) all.end(c, v, g);
    });
    pool->give_back(all.planes);
    if (VALUES == KEPT) clear();
    return true;
  }

  // out = K u for C planes of u, `stride` apart, each with zeros beyond n; out has room for as many. A tile right of the diagonal serves its rows
  // and, transposed, its columns; what columns collect is summed over PANEL rows apart before it is added, so that rounding does not grow with n.
  template <int C> SF_APART void apply(const T* u, T* out) const {
    parts([&](int p) {
      T *sum = sums(p), *panel = sum + C * stride;
      for (int c = 0; c < C; ++c)
        for (int64_t j = cut[p]; j < stride; ++j) sum[c * stride + j] = 0;
      for (int64_t top = cut[p]; top < cut[p + 1]; top += PANEL) rows<C>(u, sum, panel, top, top + PANEL < cut[p + 1] ? top + PANEL : cut[p + 1]);
    });
    for (int c = 0; c < C; ++c) {
      T* to = out + c * stride;
      for (int64_t j = 0; j < stride; ++j) to[j] = sums(0)[c * stride + j];
      for (int p = 1; p < PARTS; ++p)
        for (int64_t j = cut[p]; j < stride; ++j) to[j] += sums(p)[c * stride + j];
      for (int64_t j = 0; j < stride; ++j) to[j] *= kernel.scale_v;
    }
  }
  void apply(const T* u, T* out) const { apply<1>(u, out); }

  template <int C> SF_APART void rows(const T* u, T* out, T* part, int64_t top, int64_t bottom) const {
    for (int c = 0; c < C; ++c)
      for (int64_t j = top; j < stride; ++j) part[c * stride + j] = 0;
    for (int64_t i = top; i < bottom; i += GROUP) {
      const int64_t own = i / TILE * TILE;
      const T* from = k.at(i, own);
      V sum[C][GROUP] = {};
      T weight[C][GROUP];
      for (int c = 0; c < C; ++c)
        for (int r = 0; r < GROUP; ++r) weight[c][r] = u[c * stride + i + r];
      for (int64_t j = own; j < own + TILE; j += W, from += Half::NEXT_VECTOR)
        SF_UNROLL for (int c = 0; c < C; ++c) {
          const V v = *(const V*)(u + c * stride + j);
          SF_UNROLL for (int r = 0; r < GROUP; ++r) sum[c][r] += *(const V*)(from + r * W) * v;
        }
      for (int64_t j = own + TILE; j < stride; j += W, from += Half::NEXT_VECTOR) {
        V one[GROUP];
        SF_UNROLL for (int r = 0; r < GROUP; ++r) one[r] = *(const V*)(from + r * W);
        SF_UNROLL for (int c = 0; c < C; ++c) {
          const V v = *(const V*)(u + c * stride + j);
          V column = *(const V*)(part + c * stride + j);
          SF_UNROLL for (int r = 0; r < GROUP; ++r) {
            sum[c][r] += one[r] * v;
            column += one[r] * weight[c][r];
          }
          *(V*)(part + c * stride + j) = column;
        }
      }
      for (int c = 0; c < C; ++c)
        SF_UNROLL for (int r = 0; r < GROUP; ++r) out[c * stride + i + r] += across<T>(sum[c][r]);
    }
    for (int c = 0; c < C; ++c)
      for (int64_t j = top; j < stride; ++j) out[c * stride + j] += part[c * stride + j];
  }
};
