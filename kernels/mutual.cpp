// Sums of points among themselves whose pairing is symmetric, <a_i, b_j> = <a_j, b_i>: the operators of pair.h with the same points as rows and as
// columns, on the CPU.
//
// The force between two points is then equal and opposite, and what the kernel, or its derivative along a motion, carries from j to i it carries from i
// to j with the same weight: a pair is met once, half the exponentials and nearly half the arithmetic of cpu.cpp.
//
//   product    v_i += f0 b_j,                         v_j += f0 b_i
//   gradient   F = f1 s D;                            g_i += F,  g_j -= F
//   fused      both
//   tangent    F = f1 s D' + (f2 delta s + f1 s') D;  g_i += F,  g_j -= F,  v_i += f1 delta b_j + f0 b'_j,  v_j += f1 delta b_i + f0 b'_i
//
// Columns lie in vector lanes, GROUP rows at a time are scalars beside them. A row's sums over CHUNK columns stay in registers, those of columns over
// PANEL rows in the first cache; both are then added in double, so that rounding does not grow with n. Rows are cut into parts of equal work, and a
// part's sums are its own until all are added in order: the same bits whatever the number of threads.
//
// Macros: SF_OP (Op of pair.h), SF_REAL, SF_D, SF_E (dimensions), SF_MASK (tangents given: none, the points', or all), SF_TERMS (Name, Name, ...).
#define SF_UNROLL _Pragma("GCC unroll 32")
#include "native.h"
#include "pair.h"

enum {
  W = Lanes<T>::count,
  D = SF_D,
  E = SF_E,
  MOVES = SF_OP == TANGENT,
  RATES = MOVES && (SF_MASK & HAS_DA),  // features have tangents, too
  NV = wants_v<SF_OP> ? E : 0,
  NG = wants_g<SF_OP> ? D : 0,
  OUT = NV + NG,
  // What is known of a column, in planes: x, dx, b, db.
  DX = D,
  B = DX + (MOVES ? D : 0),
  DB = B + E,
  IN = DB + (RATES ? E : 0),
  GROUP = SF_REGISTERS >= 32 ? 4 : 2,
  TILE = W < 4 ? 4 : W,
  SPAN = 8,  // vectors of columns at a time
  PANEL = 64,
  CHUNK = 1024,
  MOST_PARTS = 32
};
static_assert(!MOVES || SF_MASK == (HAS_DX | HAS_DY) || SF_MASK == (HAS_DX | HAS_DA | HAS_DY | HAS_DB), "rows move as columns do");

struct Call {
  const Plan* plan;
  const T *sigma, *x, *dx, *a, *da, *b, *db;
  T *v, *g;
  const Pool* pool;
};

// One problem: its columns as planes, and what each part sums.
struct Mutual {
  const Call* call;
  Kernel kernel;
  int64_t first, n, stride;
  int parts;     // none where there is nothing to sum
  T* planes;
  double* sums;  // OUT planes a part

  // Returns whether there was memory.
  bool begin(const Call& c, int64_t problem) {
    call = &c;
    first = c.plan->rows[problem];
    n = c.plan->rows[problem + 1] - first;
    stride = (n + TILE - 1) / TILE * TILE;
    parts = 0;
    planes = 0;
    if (lost(c.sigma[problem])) return true;
    // Enough for many threads, few enough to add. Fixed by n: they must not depend on the thread count.
    const int few = n < 128 ? 1 : n < 512 ? 4 : 8, count = n <= 2048 ? few : n <= 8192 ? 16 : MOST_PARTS;
    planes = static_cast<T*>(c.pool->borrow(stride * (IN * sizeof(T) + OUT * count * sizeof(double))));
    if (!planes) return false;
    parts = count;
    sums = reinterpret_cast<double*>(planes + IN * stride);
    kernel = kernel_of(c.plan, c.sigma, problem);
    plane<D>(c.x, 0, true);
    if constexpr (MOVES) plane<D>(c.dx, DX, false);
    plane<E>(c.b, B, false);
    if constexpr (RATES) plane<E>(c.db, DB, false);
    return true;
  }
  // A number that is not finite anywhere makes the whole problem NaN: an infinite coordinate would otherwise give k = 0, a plausible number.
  bool lost(T sigma) const {
    const auto spoiled = [&](const T* from, int count) { return any_nonfinite(from + first * count, n * count); };
    bool bad = !(sigma > 0) || any_nonfinite(&sigma, 1) || spoiled(call->x, D) || spoiled(call->b, E);
    if constexpr (SF_OP != PRODUCT) bad |= spoiled(call->a, E);
    if constexpr (MOVES) bad |= spoiled(call->dx, D);
    if constexpr (RATES) bad |= spoiled(call->da, E) || spoiled(call->db, E);
    for (int64_t i = first * NV; bad && i < (first + n) * NV; ++i) call->v[i] = not_a_number();
    for (int64_t i = first * NG; bad && i < (first + n) * NG; ++i) call->g[i] = not_a_number();
    return bad || n == 0;
  }
  // Columns beyond the last are that point again, without features and not moving: they add nothing.
  template <int N> void plane(const T* from, int at, bool repeat) {
    for (int64_t j = 0; j < stride; ++j)
      for (int k = 0; k < N; ++k) planes[(at + k) * stride + j] = j < n || repeat ? from[(first + (j < n ? j : n - 1)) * N + k] : T(0);
  }
  int64_t cut(int part) const { return triangle_cut(part, parts, stride, TILE); }

  // A row's scalars.
  struct Row {
    T x[D], dx[D], a[E], da[E], b[E], db[E];
  };
  void load(Row& row, int64_t i) const {
    const int64_t at = first + (i < n ? i : n - 1);
    const auto take = [&](T* to, const T* from, int count) {
      for (int k = 0; k < count; ++k) to[k] = i < n ? from[at * count + k] : T(0);
    };
    for (int k = 0; k < D; ++k) row.x[k] = call->x[at * D + k];
    if constexpr (MOVES) take(row.dx, call->dx, D);
    if constexpr (SF_OP != PRODUCT) take(row.a, call->a, E);
    if constexpr (NV) take(row.b, call->b, E);
    if constexpr (RATES) take(row.da, call->da, E), take(row.db, call->db, E);
  }

  // What a pair carries: the weights of b and of db.
  struct Carried {
    V b, db;
  };

  // The pairs of GROUP rows with `span` W columns from j on. What columns collect goes to `column`, planes of CHUNK, or nowhere in the tile of the
  // diagonal, where each pair is met twice.
  template <bool BOTH> SF_FN void meet(const Row* row, V (*sum)[OUT], int64_t j, int span, T* column) const {
    Carried carried[GROUP][SPAN];
    for (int l = 0; l < span; ++l) {
      V y[IN], back[D];
      SF_UNROLL for (int k = 0; k < (SF_OP == PRODUCT ? D : IN); ++k) y[k] = *(const V*)(planes + k * stride + j + l * W);
      if constexpr (BOTH && NG) {
        SF_UNROLL for (int k = 0; k < D; ++k) back[k] = *(const V*)(column + (NV + k) * CHUNK + l * W);
      }
      SF_UNROLL for (int r = 0; r < GROUP; ++r) {
        V d[D], f0, f1, f2;
        SF_UNROLL for (int k = 0; k < D; ++k) d[k] = row[r].x[k] - y[k];
        kernel(dot<D>(d, d), f0, f1, f2);
        if constexpr (!MOVES) carried[r][l].b = f0;
        if constexpr (NG) {
          const V s = dot<E>(y + B, row[r].a), w = f1 * s;
          if constexpr (MOVES) {
            V dd[D];
            SF_UNROLL for (int k = 0; k < D; ++k) dd[k] = row[r].dx[k] - y[DX + k];
            const V delta = dot<D>(dd, d) * kernel.eta;
            V h = f2 * delta * s;
            carried[r][l].b = f1 * delta;
            if constexpr (RATES) {
              carried[r][l].db = f0;
              h += f1 * (dot<E>(y + DB, row[r].a) + dot<E>(y + B, row[r].da));
            }
            SF_UNROLL for (int k = 0; k < D; ++k) d[k] = w * dd[k] + h * d[k];
          } else {
            SF_UNROLL for (int k = 0; k < D; ++k) d[k] = w * d[k];
          }
          SF_UNROLL for (int k = 0; k < D; ++k) {
            sum[r][NV + k] += d[k];
            if constexpr (BOTH) back[k] -= d[k];
          }
        }
      }
      if constexpr (BOTH && NG) {
        SF_UNROLL for (int k = 0; k < D; ++k) *(V*)(column + (NV + k) * CHUNK + l * W) = back[k];
      }
    }
    for (int k = 0; k + 1 < NV; k += 2) carry<BOTH, 2>(row, sum, k, carried, j, span, column);
    if constexpr (NV % 2) carry<BOTH, 1>(row, sum, NV - 1, carried, j, span, column);
  }

  // v of N features from k on, by what these pairs carry.
  template <bool BOTH, int N>
  SF_FN void carry(const Row* row, V (*sum)[OUT], int k, Carried (*carried)[SPAN], int64_t j, int span, T* column) const {
    V total[GROUP][N];
    SF_UNROLL for (int r = 0; r < GROUP; ++r)
      SF_UNROLL for (int c = 0; c < N; ++c) total[r][c] = sum[r][k + c];
    for (int l = 0; l < span; ++l)
      SF_UNROLL for (int c = 0; c < N; ++c) {
        const auto at = [&](int plane) { return *(const V*)(planes + (plane + k + c) * stride + j + l * W); };
        T* place = column + (k + c) * CHUNK + l * W;
        const V b = at(B), db = RATES ? at(DB) : V{};
        V back = {};
        if constexpr (BOTH) back = *(const V*)place;
        SF_UNROLL for (int r = 0; r < GROUP; ++r) {
          const Carried& by = carried[r][l];
          total[r][c] += by.b * b;
          if constexpr (RATES) total[r][c] += by.db * db;
          if constexpr (BOTH) back += by.b * row[r].b[k + c];
          if constexpr (BOTH && RATES) back += by.db * row[r].db[k + c];
        }
        if constexpr (BOTH) *(V*)place = back;
      }
    SF_UNROLL for (int r = 0; r < GROUP; ++r)
      SF_UNROLL for (int c = 0; c < N; ++c) sum[r][k + c] = total[r][c];
  }

  void part(int p) const {
    const FlushDenormals flush;
    double* out = sums + OUT * p * stride;
    const int64_t low = cut(p), high = cut(p + 1);
    for (int k = 0; k < OUT; ++k)
      for (int64_t j = low; j < stride; ++j) out[k * stride + j] = 0;
    alignas(64) T panel[OUT * CHUNK];
    for (int64_t top = low; top < high; top += PANEL) {
      const int64_t bottom = top + PANEL < high ? top + PANEL : high;
      for (int64_t begin = top; begin < stride; begin += CHUNK) {
        const int64_t end = begin + CHUNK < stride ? begin + CHUNK : stride;
        for (int k = 0; k < OUT; ++k)
          for (int64_t j = 0; j < end - begin; ++j) panel[k * CHUNK + j] = 0;
        for (int64_t i = top; i < bottom; i += GROUP) {
          Row row[GROUP];
          V sum[GROUP][OUT] = {};
          for (int r = 0; r < GROUP; ++r) load(row[r], i + r);
          int64_t j = begin;
          if (begin == top) {
            j = i / TILE * TILE;
            meet<false>(row, sum, j, TILE / W, 0);
            j += TILE;
          }
          for (; j < end; j += SPAN * W) meet<true>(row, sum, j, int((end - j) / W < SPAN ? (end - j) / W : SPAN), panel + j - begin);
          for (int r = 0; r < GROUP; ++r)
            for (int k = 0; k < OUT; ++k) out[k * stride + i + r] += double(across<T>(sum[r][k]));
        }
        for (int k = 0; k < OUT; ++k)
          for (int64_t j = begin; j < end; ++j) out[k * stride + j] += double(panel[k * CHUNK + j - begin]);
      }
    }
  }

  // The k-th of v and g.
  void end(int k) const {
    double* total = sums + k * stride;
    for (int p = 1; p < parts; ++p) {
      const double* more = sums + (OUT * p + k) * stride;
      for (int64_t j = cut(p); j < stride; ++j) total[j] += more[j];
    }
    const bool is_v = k < NV;
    const double scale = is_v ? kernel.scale_v : kernel.scale_g;
    T* to = is_v ? call->v + first * E + k : call->g + first * D + k - NV;
    for (int64_t j = 0; j < n; ++j) to[j * (is_v ? E : D)] = T(total[j] * scale);
  }
};

// v (N, E) and g (N, D). Returns 0, or 1 when memory ran out. The arguments are those of cpu.cpp, so that either can be called: columns are the rows
// again, features lie without gaps, and no pair is skipped.
SF_EXPORT int shapeflow_run(const Plan* plan, const T* sigma, const T* x, const T* dx, const T* a, const T* da, const T*, const T*, const T* b,
                            const T* db, T* v, T* g, int64_t, int64_t, int64_t, double, int threads, const Pool* pool) {
  const Call c = {plan, sigma, x, dx, a, da, b, db, v, g, pool};
  int failed = 0;
  // Several problems at once, by a team of threads: first what they need, then all of their parts, then the results.
  const auto together = [&](Mutual* m, int64_t begin, int64_t count, int team) {
    share(count, team, pool, [&](int64_t p) {
      if (!m[p].begin(c, begin + p)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
    });
    share(count * MOST_PARTS, team, pool, [&](int64_t i) {
      if (i / count < m[i % count].parts) m[i % count].part(int(i / count));
    });
    share(count * OUT, team, pool, [&](int64_t i) {
      if (m[i % count].parts) m[i % count].end(int(i / count));
    });
    for (int64_t p = 0; p < count; ++p) pool->give_back(m[p].planes);
  };
  const int64_t problems = plan->problems, most = 2 * threads;
  if (problems >= 2 * most) {  // enough for a thread each
    share(problems, threads, pool, [&](int64_t p) {
      Mutual m;
      together(&m, p, 1, 1);
    });
    return failed;
  }
  // As many as give every thread two parts.
  Mutual* m = static_cast<Mutual*>(malloc(sizeof(Mutual) * problems));
  if (!m) return 1;
  for (int64_t begin = 0, end; begin < problems; begin = end) {
    int64_t points = 0;
    for (end = begin; end < problems && points < 128 * most; ++end) points += plan->rows[end + 1] - plan->rows[end];
    together(m, begin, end - begin, threads);
  }
  free(m);
  return failed;
}
