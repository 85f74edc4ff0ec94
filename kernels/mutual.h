// Sums of points among themselves whose pairing is symmetric, <a_i, b_j> = <a_j, b_i>: the operators of pair.h with the same points as rows and as
// columns, on the CPU, one problem at a time.
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
// The kernel's values can be kept in a matrix for products that follow, or be read from it; of one term f1 and f2 follow from f0 (radial.h).
//
// Macros: SF_REAL, SF_D (dimension of points), SF_TERMS (Name, Name, ...).
#pragma once
#include "half.h"
#include "pair.h"

// What becomes of the kernel's values: nothing; they go into a matrix; or they come from it.
enum Values { PASSING, KEPT, READ };

// OP (Op of pair.h), E features, MASK (tangents given: none, the points', or all).
template <int OP, int E, int MASK, Values VALUES = PASSING> struct Mutual {
  enum {
    W = Lanes<T>::count,
    D = SF_D,
    MOVES = OP == TANGENT,
    RATES = MOVES && (MASK & HAS_DA),  // features have tangents, too
    NV = wants_v<OP> ? E : 0,
    NG = wants_g<OP> ? D : 0,
    OUT = NV + NG,
    // What is known of a column, in planes: x, dx, b, db.
    DX = D,
    B = DX + (MOVES ? D : 0),
    DB = B + E,
    IN = DB + (RATES ? E : 0),
    GROUP = SF_REGISTERS >= 32 ? 4 : 2,
    TILE = W < 4 ? 4 : W,
    WIDE = OP == GRADIENT && E > 16,  // see `brackets`: a fifth less time from 20 features on, and more below 16
    SPAN = 8,  // vectors of columns at a time
    PANEL = 64,
    CHUNK = 1024,
    FOUND = VALUES == READ && Kernel::follows
  };
  static_assert(!MOVES || MASK == (HAS_DX | HAS_DY) || MASK == (HAS_DX | HAS_DA | HAS_DY | HAS_DB), "rows move as columns do");

  // The rows of the problem, without gaps.
  struct Given {
    const T *x, *dx, *a, *da, *b, *db;
  };

  Given given;
  Kernel kernel;
  int64_t n, stride;
  int parts;
  T* planes;     // columns as planes
  double* sums;  // OUT planes a part
  Half matrix;

  // Returns whether there was memory. What is borrowed begins at `planes`.
  bool begin(const Given& rows, const Kernel& radial, int64_t points, int cuts, const Pool* pool, Half values = {}) {
    given = rows;
    kernel = radial;
    n = points;
    stride = (n + TILE - 1) / TILE * TILE;
    parts = cuts;
    matrix = values;
    planes = static_cast<T*>(pool->borrow(stride * (IN * sizeof(T) + OUT * parts * sizeof(double))));
    if (!planes) return false;
    sums = reinterpret_cast<double*>(planes + IN * stride);
    plane<D>(given.x, 0, true);
    if constexpr (MOVES) plane<D>(given.dx, DX, false);
    plane<E>(given.b, B, false);
    if constexpr (RATES) plane<E>(given.db, DB, false);
    return true;
  }
  // Columns beyond the last are that point again, without features and not moving: they add nothing.
  template <int N> void plane(const T* from, int at, bool repeat) {
    for (int64_t j = 0; j < stride; ++j)
      for (int k = 0; k < N; ++k) planes[(at + k) * stride + j] = j < n || repeat ? from[(j < n ? j : n - 1) * N + k] : T(0);
  }
  int64_t cut(int part) const { return triangle_cut(part, parts, stride, TILE); }
  T* value_at(int64_t i, int64_t j) const { return VALUES == PASSING ? 0 : matrix.at(i, j); }

  // A row's scalars.
  struct Row {
    T x[D], dx[D], a[E], da[E], b[E], db[E];
  };
  void load(Row& row, int64_t i) const {
    const int64_t at = i < n ? i : n - 1;
    const auto take = [&](T* to, const T* from, int count) {
      for (int k = 0; k < count; ++k) to[k] = i < n ? from[at * count + k] : T(0);
    };
    for (int k = 0; k < D; ++k) row.x[k] = given.x[at * D + k];
    if constexpr (MOVES) take(row.dx, given.dx, D);
    if constexpr (OP != PRODUCT) take(row.a, given.a, E);
    if constexpr (NV) take(row.b, given.b, E);
    if constexpr (RATES) take(row.da, given.da, E), take(row.db, given.db, E);
  }

  // What a pair carries: the weights of b and of db.
  struct Carried {
    V b, db;
  };

  // <a_i, b_j> of GROUP rows with L vectors of columns, the l-th on from j. Features outermost: many of them would not stay in registers until the next
  // row comes, and L vectors share a row's scalar.
  template <int L> SF_FN void brackets(const Row* row, V (*bracket)[SPAN], int l, int64_t j) const {
    V sum[GROUP][L] = {};
    SF_UNROLL for (int k = 0; k < E; ++k) {
      const T* b = planes + (B + k) * stride + j + l * W;
      SF_UNROLL for (int c = 0; c < L; ++c) {
        const V y = *(const V*)(b + c * W);
        SF_UNROLL for (int r = 0; r < GROUP; ++r) sum[r][c] += y * row[r].a[k];
      }
    }
    SF_UNROLL for (int r = 0; r < GROUP; ++r)
      SF_UNROLL for (int c = 0; c < L; ++c) bracket[r][l + c] = sum[r][c];
  }

  // The pairs of GROUP rows with `span` W columns from j on. What columns collect goes to `column`, planes of CHUNK, or nowhere in the tile of the
  // diagonal, where each pair is met twice. `values`: where the matrix has the first row's.
  template <bool BOTH> SF_FN void meet(const Row* row, V (*sum)[OUT], int64_t j, int span, T* column, T* values) const {
    Carried carried[GROUP][SPAN];
    V bracket[GROUP][SPAN];
    if constexpr (WIDE) {
      int l = 0;
      for (; l + 3 < span; l += 4) brackets<4>(row, bracket, l, j);
      for (; l < span; ++l) brackets<1>(row, bracket, l, j);
    }
    for (int l = 0; l < span; ++l) {
      V y[IN], back[D];
      SF_UNROLL for (int k = 0; k < (OP == PRODUCT ? D : IN); ++k) y[k] = *(const V*)(planes + k * stride + j + l * W);
      if constexpr (BOTH && NG) {
        SF_UNROLL for (int k = 0; k < D; ++k) back[k] = *(const V*)(column + (NV + k) * CHUNK + l * W);
      }
      SF_UNROLL for (int r = 0; r < GROUP; ++r) {
        V d[D], f0, f1, f2;
        SF_UNROLL for (int k = 0; k < D; ++k) d[k] = row[r].x[k] - y[k];
        V* value = (V*)(values + r * Half::NEXT_ROW + l * Half::NEXT_VECTOR);
        if constexpr (FOUND) {
          f0 = *value;
          kernel.from_value(f0, f1, f2);
        } else {
          kernel(dot<D>(d, d), f0, f1, f2);
          if constexpr (VALUES == KEPT) *value = f0;
        }
        if constexpr (!MOVES) carried[r][l].b = f0;
        if constexpr (NG) {
          const V s = WIDE ? bracket[r][l] : dot<E>(y + B, row[r].a), w = f1 * s;
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
            meet<false>(row, sum, j, TILE / W, 0, value_at(i, j));
            j += TILE;
          }
          for (; j < end; j += SPAN * W) meet<true>(row, sum, j, int((end - j) / W < SPAN ? (end - j) / W : SPAN), panel + j - begin, value_at(i, j));
          for (int r = 0; r < GROUP; ++r)
            for (int k = 0; k < OUT; ++k) out[k * stride + i + r] += double(across<T>(sum[r][k]));
        }
        for (int k = 0; k < OUT; ++k)
          for (int64_t j = begin; j < end; ++j) out[k * stride + j] += double(panel[k * CHUNK + j - begin]);
      }
    }
  }

  // The k-th of v (n, E) and g (n, D).
  void end(int k, T* v, T* g) const {
    double* total = sums + k * stride;
    for (int p = 1; p < parts; ++p) {
      const double* more = sums + (OUT * p + k) * stride;
      for (int64_t j = cut(p); j < stride; ++j) total[j] += more[j];
    }
    const bool is_v = k < NV;
    const double scale = is_v ? kernel.scale_v : kernel.scale_g;
    T* to = is_v ? v + k : g + k - NV;
    for (int64_t j = 0; j < n; ++j) to[j * (is_v ? E : D)] = T(total[j] * scale);
  }
};
