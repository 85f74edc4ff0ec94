// Sums of points among themselves whose pairing is symmetric, <a_i, b_j> = <a_j, b_i>: the gradient, and its tangent with the points moving, of
// pair.h, on the CPU.
//
// The force between two points is then equal and opposite, and what the kernel's derivative along the motion carries from j to i it carries from i to
// j with the same weight: a pair is met once, half the exponentials and half the arithmetic of cpu.cpp. Every sum of a normalized metric
// (shapeflow/metric) is of this kind.
//
//   gradient   F = f1 s D;                            g_i += F,  g_j -= F
//   tangent    F = f1 s D' + f2 delta s D;            g_i += F,  g_j -= F,  v_i += f1 delta b_j,  v_j += f1 delta b_i
//
// Columns lie in vector lanes, GROUP rows at a time are scalars beside them. What a row collects stays in registers; what columns collect is summed
// over PANEL rows apart before it is added, so that rounding does not grow with n. Rows are cut into PARTS of equal work, and a part's sums are its
// own until all are added in order: the same bits whatever the number of threads.
//
// Macros: SF_OP (GRADIENT, TANGENT), SF_REAL, SF_D, SF_E (features), SF_TERMS (Name, Name, ...).
#define SF_UNROLL _Pragma("GCC unroll 32")
#include "native.h"
#include "pair.h"

enum {
  W = Lanes<T>::count,
  D = SF_D,
  E = SF_E,
  MOVES = SF_OP == TANGENT,
  NV = MOVES ? E : 0,
  OUT = NV + D,                  // v, then g
  IN = D + (MOVES ? D : 0) + E,  // x, dx, b
  GROUP = SF_REGISTERS >= 32 ? 4 : 2,
  TILE = W < 4 ? 4 : W,
  SPAN = 8,                      // vectors of columns at a time
  PANEL = 64,
  PARTS = 8
};

struct Call {
  const Plan* plan;
  const T *sigma, *x, *dx, *a, *b;
  T *v, *g;
};

// One problem: its columns as planes, and what each part sums.
struct Mutual {
  const Call* call;
  Kernel kernel;
  int64_t first, n, stride;
  int64_t cut[PARTS + 1];  // of equal work
  T *planes, *sums;

  bool begin(const Call& c, int64_t problem) {
    call = &c;
    first = c.plan->rows[problem];
    n = c.plan->rows[problem + 1] - first;
    stride = (n + TILE - 1) / TILE * TILE;
    kernel = kernel_of(c.plan, c.sigma, problem);
    for (int p = 0; p <= PARTS; ++p) cut[p] = triangle_cut(p, PARTS, stride, TILE);
    planes = static_cast<T*>(aligned_alloc(64, (stride * (IN + 2 * OUT * PARTS) * sizeof(T) + 63) / 64 * 64));
    if (!planes) return false;
    sums = planes + IN * stride;
    plane<D>(c.x, 0, true);
    if constexpr (MOVES) plane<D>(c.dx, D, false);
    plane<E>(c.b, IN - E, false);
    return true;
  }
  // Columns beyond the last are that point again, without features and not moving: they add nothing.
  template <int N> void plane(const T* from, int at, bool repeat) {
    for (int64_t j = 0; j < stride; ++j)
      for (int k = 0; k < N; ++k) planes[(at + k) * stride + j] = j < n || repeat ? from[(first + (j < n ? j : n - 1)) * N + k] : T(0);
  }

  // A row's scalars, and what it collects.
  struct Row {
    T x[D], dx[D], a[E], b[E];
  };
  void load(Row& row, int64_t i) const {
    const int64_t at = first + (i < n ? i : n - 1);
    for (int k = 0; k < D; ++k) row.x[k] = call->x[at * D + k], row.dx[k] = MOVES && i < n ? call->dx[at * D + k] : T(0);
    for (int k = 0; k < E; ++k) row.a[k] = i < n ? call->a[at * E + k] : T(0), row.b[k] = i < n ? call->b[at * E + k] : T(0);
  }

  // The pairs of GROUP rows with SPAN x W columns from j on; what columns collect goes to `column`, or nowhere in the tile of the diagonal, where
  // each pair is met twice.
  template <bool BOTH> SF_FN void meet(const Row* row, V (*sum)[OUT], int64_t j0, int span, T* column) const {
    V carried[GROUP][SPAN];  // f1 delta, which every feature of v is multiplied by
    for (int l = 0; l < span; ++l) {
      const int64_t j = j0 + l * W;
      V y[IN], back[D];
      SF_UNROLL for (int k = 0; k < IN; ++k) y[k] = *(const V*)(planes + k * stride + j);
      if constexpr (BOTH) {
        SF_UNROLL for (int k = 0; k < D; ++k) back[k] = *(const V*)(column + (NV + k) * stride + j);
      }
      SF_UNROLL for (int r = 0; r < GROUP; ++r) {
        V d[D], f0, f1, f2;
        SF_UNROLL for (int k = 0; k < D; ++k) d[k] = row[r].x[k] - y[k];
        kernel(dot<D>(d, d), f0, f1, f2);
        const V s = dot<E>(y + IN - E, row[r].a), w = f1 * s;
        if constexpr (MOVES) {
          V dd[D];
          SF_UNROLL for (int k = 0; k < D; ++k) dd[k] = row[r].dx[k] - y[D + k];
          const V delta = dot<D>(dd, d) * kernel.eta, h = f2 * delta * s;
          carried[r][l] = f1 * delta;
          SF_UNROLL for (int k = 0; k < D; ++k) d[k] = w * dd[k] + h * d[k];
        } else {
          SF_UNROLL for (int k = 0; k < D; ++k) d[k] = w * d[k];
        }
        SF_UNROLL for (int k = 0; k < D; ++k) {
          sum[r][NV + k] += d[k];
          if constexpr (BOTH) back[k] -= d[k];
        }
      }
      if constexpr (BOTH) {
        SF_UNROLL for (int k = 0; k < D; ++k) *(V*)(column + (NV + k) * stride + j) = back[k];
      }
    }
    for (int k = 0; k + 1 < NV; k += 2) carry<BOTH, 2>(row, sum, k, carried, j0, span, column);
    if constexpr (NV % 2) carry<BOTH, 1>(row, sum, NV - 1, carried, j0, span, column);
  }

  // v of N features from k on, by what these pairs carry.
  template <bool BOTH, int N> SF_FN void carry(const Row* row, V (*sum)[OUT], int k, V (*carried)[SPAN], int64_t j0, int span, T* column) const {
    V total[GROUP][N];
    SF_UNROLL for (int r = 0; r < GROUP; ++r)
      SF_UNROLL for (int c = 0; c < N; ++c) total[r][c] = sum[r][k + c];
    for (int l = 0; l < span; ++l)
      SF_UNROLL for (int c = 0; c < N; ++c) {
        const int64_t j = j0 + l * W;
        const V b = *(const V*)(planes + (IN - E + k + c) * stride + j);
        V back = {};
        if constexpr (BOTH) back = *(const V*)(column + (k + c) * stride + j);
        SF_UNROLL for (int r = 0; r < GROUP; ++r) {
          total[r][c] += carried[r][l] * b;
          if constexpr (BOTH) back += carried[r][l] * row[r].b[k + c];
        }
        if constexpr (BOTH) *(V*)(column + (k + c) * stride + j) = back;
      }
    SF_UNROLL for (int r = 0; r < GROUP; ++r)
      SF_UNROLL for (int c = 0; c < N; ++c) sum[r][k + c] = total[r][c];
  }

  void part(int p) const {
    T *out = sums + 2 * OUT * p * stride, *panel = out + OUT * stride;
    for (int k = 0; k < OUT; ++k)
      for (int64_t j = cut[p]; j < stride; ++j) out[k * stride + j] = panel[k * stride + j] = 0;
    for (int64_t i = cut[p], top = i; i < cut[p + 1]; i += GROUP) {
      const int64_t own = i / TILE * TILE;
      Row row[GROUP];
      V sum[GROUP][OUT] = {};
      for (int r = 0; r < GROUP; ++r) load(row[r], i + r);
      meet<false>(row, sum, own, TILE / W, 0);
      for (int64_t j = own + TILE; j < stride; j += SPAN * W) meet<true>(row, sum, j, int((stride - j) / W < SPAN ? (stride - j) / W : SPAN), panel);
      for (int r = 0; r < GROUP; ++r)
        for (int k = 0; k < OUT; ++k) out[k * stride + i + r] += across<T>(sum[r][k]);
      if (i + GROUP < top + PANEL && i + GROUP < cut[p + 1]) continue;
      for (int k = 0; k < OUT; ++k)
        for (int64_t j = top; j < stride; ++j) out[k * stride + j] += panel[k * stride + j], panel[k * stride + j] = 0;
      top = i + GROUP;
    }
  }

  void end() const {
    for (int k = 0; k < OUT; ++k) {
      T* total = sums + k * stride;
      for (int p = 1; p < PARTS; ++p) {
        const T* more = sums + (2 * OUT * p + k) * stride;
        for (int64_t j = cut[p]; j < stride; ++j) total[j] += more[j];
      }
      const bool is_v = k < NV;
      const T scale = is_v ? kernel.scale_v : kernel.scale_g;
      T* to = is_v ? call->v + first * E + k : call->g + first * D + k - NV;
      for (int64_t j = 0; j < n; ++j) to[j * (is_v ? E : D)] = total[j] * scale;
    }
    free(planes);
  }
};

// A number that is not finite anywhere makes the whole problem NaN: an infinite coordinate would otherwise give k = 0, a plausible number.
static bool lost(const Call& c, int64_t problem) {
  const int64_t first = c.plan->rows[problem], n = c.plan->rows[problem + 1] - first;
  bool bad = !(c.sigma[problem] > 0) || any_nonfinite(c.sigma + problem, 1) || any_nonfinite(c.x + first * D, n * D);
  bad |= any_nonfinite(c.a + first * E, n * E) || any_nonfinite(c.b + first * E, n * E) || (MOVES && any_nonfinite(c.dx + first * D, n * D));
  for (int64_t i = first * D; bad && i < (first + n) * D; ++i) c.g[i] = not_a_number();
  for (int64_t i = first * NV; bad && i < (first + n) * NV; ++i) c.v[i] = not_a_number();
  return bad || n == 0;
}

// v (N, E) of the tangent only; g (N, D). Threads are one to a problem, or all in one problem after the other when there are more threads than
// problems. Returns 0, or 1 when memory ran out.
SF_EXPORT int shapeflow_mutual(const Plan* plan, const T* sigma, const T* x, const T* dx, const T* a, const T* b, T* v, T* g, int threads, Parallel parallel) {
  const Call c = {plan, sigma, x, dx, a, b, v, g};
  const int inside = threads > plan->problems ? threads : 1;
  int failed = 0;
  share(plan->problems, inside > 1 ? 1 : threads, parallel, [&](int64_t p) {
    if (lost(c, p)) return;
    Mutual m;
    if (!m.begin(c, p)) {
      __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
      return;
    }
    share(PARTS, inside, parallel, [&](int64_t part) {
      const FlushDenormals flush;
      m.part(int(part));
    });
    m.end();
  });
  return failed;
}
