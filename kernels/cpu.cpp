// Kernel products on the CPU. One translation unit is one specialisation, chosen by macros:
//   SF_OP (Op of pair.h), SF_REAL (float, double), SF_D, SF_E (dimensions of points and features), SF_TERMS (Name, Name, ...), SF_MASK (tangents given).
//
// A tile is SF_R x W rows of one problem: rows in vector lanes, SF_R vectors of them, so that the row's values and its sums stay in registers while
// the columns stream by as scalars (broadcast by the load unit, no packing, no transposition). Columns are added in blocks of BLOCK in the working
// precision, blocks in double: a float32 sum over a million columns is as exact as one over a hundred.
// The sum of a row is always formed in the same order, whatever the number of threads: same inputs, same bits.
#include "native.h"
#include "pair.h"
#include "boxes.h"

enum {
  W = Lanes<T>::count,
  BLOCK = 128,
  // Values a row keeps in registers through the column loop; what is left over decides how many vectors of rows a tile has.
  TANGENTS = SF_OP == TANGENT,
  // The row's own features count half: they only enter products, which read them from the first cache as well (measured).
  FEATURES = (wants_g<SF_OP> ? SF_E : 0) + (TANGENTS && (SF_MASK & HAS_DA) ? SF_E : 0),
  LIVE = SF_D + (wants_v<SF_OP> ? SF_E : 0) + (wants_g<SF_OP> ? SF_D : 0) + (TANGENTS && (SF_MASK & HAS_DX) ? SF_D : 0) + FEATURES / 2,
  FIT = SF_REGISTERS * 4 / 3 / (LIVE + 3),  // measured: a few values read back from the first cache cost less than fewer rows would
#ifdef SF_R
  R = SF_R
#else
  R = FIT < 1 ? 1 : FIT > 4 ? 4 : FIT
#endif
};
enum { NV = wants_v<SF_OP> ? SF_E : 0, NG = wants_g<SF_OP> ? SF_D : 0, OUT = NV + NG, TILE = R * W };
// Below this many tiles the columns are cut as well, so that few rows still occupy every core. Fixed: it must not depend on the thread count.
enum { ENOUGH_TILES = 64, SMALLEST_CUT = 1024 };

struct Call {
  const Plan* plan;
  const T *sigma, *x, *dx, *a, *da, *y, *dy, *b, *db;
  T *v, *g;
  int64_t lda, ldb, ldv;  // distance between two rows of a and da, b and db, v
};

struct Item {
  int64_t problem, row, column_begin, column_end;
  double* partial;  // TILE x OUT sums, when the columns are cut
};

template <int N> static inline void load_rows(V (*out)[N], const T* from, int64_t stride, int vectors, int64_t rows) {
  for (int r = 0; r < vectors; ++r)
    for (int l = 0; l < W; ++l) {
      const int64_t i = r * W + l;
      const T* p = from + (i < rows ? i : rows - 1) * stride;  // the tail repeats the last row, and is not stored
      for (int k = 0; k < N; ++k) out[r][k][l] = p[k];
    }
}

// Whether a value of columns [begin, end) is NaN or infinite.
static inline bool column_bad(const Call& c, int64_t begin, int64_t end) {
  bool bad = any_nonfinite(c.y + begin * SF_D, (end - begin) * SF_D);
  if constexpr (TANGENTS && (SF_MASK & HAS_DY)) bad |= any_nonfinite(c.dy + begin * SF_D, (end - begin) * SF_D);
  for (int64_t j = begin; j < end; ++j) {
    bad |= any_nonfinite(c.b + j * c.ldb, SF_E);
    if constexpr (TANGENTS && (SF_MASK & HAS_DB)) bad |= any_nonfinite(c.db + j * c.ldb, SF_E);
  }
  return bad;
}

// Sums of `rows` <= N W rows against columns [j0, j1): acc (N W, OUT) in double. Returns whether a column was not finite.
template <int N>
static bool sweep(const Call& c, const Kernel& kernel, const Near<T, SF_D>& near, int64_t i0, int64_t rows, int64_t j0, int64_t j1, double* acc) {
  V x[N][SF_D], dx[N][SF_D], a[N][SF_E], da[N][SF_E];
  load_rows<SF_D>(x, c.x + i0 * SF_D, SF_D, N, rows);
  if constexpr (SF_OP != PRODUCT) load_rows<SF_E>(a, c.a + i0 * c.lda, c.lda, N, rows);
  if constexpr (TANGENTS && (SF_MASK & HAS_DX)) load_rows<SF_D>(dx, c.dx + i0 * SF_D, SF_D, N, rows);
  if constexpr (TANGENTS && (SF_MASK & HAS_DA)) load_rows<SF_E>(da, c.da + i0 * c.lda, c.lda, N, rows);

  Box<T, SF_D> here;
  if (near.blocks) here.around(c.x + i0 * SF_D, rows);
  V zero = {};
  double sum[N][OUT][W] = {};
  bool bad = false;
  for (int64_t begin = j0; begin < j1; begin += BLOCK) {
    if (near.blocks) {
      const int64_t skipped = near.skip(here, (begin - near.origin) / BLOCK);
      if (skipped) {
        begin += (skipped - 1) * BLOCK;
        continue;
      }
    }
    const int64_t end = begin + BLOCK < j1 ? begin + BLOCK : j1;
    V v[N][NV + 1], g[N][NG + 1];
    SF_UNROLL for (int r = 0; r < N; ++r) {
      SF_UNROLL for (int k = 0; k < NV; ++k) v[r][k] = zero;
      SF_UNROLL for (int k = 0; k < NG; ++k) g[r][k] = zero;
    }
    for (int64_t j = begin; j < end; ++j) {
      const T *y = c.y + j * SF_D, *b = c.b + j * c.ldb;
      const T *dy = TANGENTS && (SF_MASK & HAS_DY) ? c.dy + j * SF_D : 0, *db = TANGENTS && (SF_MASK & HAS_DB) ? c.db + j * c.ldb : 0;
      SF_UNROLL for (int r = 0; r < N; ++r) pair<SF_OP, SF_D, SF_E, SF_MASK>(kernel, x[r], dx[r], a[r], da[r], y, dy, b, db, v[r], g[r]);
    }
    for (int r = 0; r < N; ++r) {
      SF_UNROLL for (int k = 0; k < NV; ++k)
        for (int l = 0; l < W; ++l) sum[r][k][l] += double(v[r][k][l]);
      SF_UNROLL for (int k = 0; k < NG; ++k)
        for (int l = 0; l < W; ++l) sum[r][NV + k][l] += double(g[r][k][l]);
    }
    // Checked while the block is in the first cache. An infinite coordinate would otherwise give k = 0, a plausible number.
    bad |= column_bad(c, begin, end);
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int k = 0; k < OUT; ++k) acc[i * OUT + k] = sum[i / W][k][i % W];
  return bad;
}

// Any number of rows of a tile: whole tiles at once, the tail by single vectors, so that a problem of five rows does not pay for sixty-four.
static bool sums(const Call& c, const Kernel& kernel, const Near<T, SF_D>& near, int64_t i0, int64_t rows, int64_t j0, int64_t j1, double* acc) {
  if (rows > (R - 1) * W) return sweep<R>(c, kernel, near, i0, rows, j0, j1, acc);
  bool bad = false;
  for (int64_t i = 0; i < rows; i += W) bad |= sweep<1>(c, kernel, near, i0 + i, rows - i < W ? rows - i : int64_t(W), j0, j1, acc + i * OUT);
  return bad;
}

static void store(const Call& c, const Kernel& kernel, T sigma, int64_t i0, int64_t rows, const double* acc, bool bad) {
  bad |= !(sigma > 0) || any_nonfinite(&sigma, 1);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = i0 + i;
    bool poison = bad || any_nonfinite(c.x + row * SF_D, SF_D);
    if constexpr (SF_OP != PRODUCT) poison |= any_nonfinite(c.a + row * c.lda, SF_E);
    if constexpr (TANGENTS && (SF_MASK & HAS_DX)) poison |= any_nonfinite(c.dx + row * SF_D, SF_D);
    if constexpr (TANGENTS && (SF_MASK & HAS_DA)) poison |= any_nonfinite(c.da + row * c.lda, SF_E);
    for (int k = 0; k < NV; ++k) c.v[row * c.ldv + k] = poison ? not_a_number() : T(acc[i * OUT + k] * kernel.scale_v);
    for (int k = 0; k < NG; ++k) c.g[row * SF_D + k] = poison ? not_a_number() : T(acc[i * OUT + NV + k] * kernel.scale_g);
  }
}

// Where the cuts of a problem's columns lie: whole blocks, so that a block belongs to one cut.
static inline int64_t cut_at(int64_t columns, int64_t s, int64_t cuts) { return s == cuts ? columns : columns * s / cuts / BLOCK * BLOCK; }

// Returns 0, or 1 when memory ran out. `reach` > 0: columns farther than reach x sigma may be skipped, by blocks.
SF_EXPORT int shapeflow_run(const Plan* plan, const T* sigma, const T* x, const T* dx, const T* a, const T* da, const T* y, const T* dy, const T* b, const T* db,
                            T* v, T* g, int64_t lda, int64_t ldb, int64_t ldv, double reach, int threads, const Pool* pool) {
  const Call c = {plan, sigma, x, dx, a, da, y, dy, b, db, v, g, lda, ldb, ldv};
  const int64_t B = plan->problems;
  int64_t tiles = 0, most_columns = 0;
  for (int64_t p = 0; p < B; ++p) {
    const int64_t columns = plan->columns[p + 1] - plan->columns[p];
    tiles += (plan->rows[p + 1] - plan->rows[p] + TILE - 1) / TILE;
    most_columns = most_columns > columns ? most_columns : columns;
  }
  if (tiles == 0) return 0;
  const bool cut = tiles < ENOUGH_TILES && most_columns >= 2 * SMALLEST_CUT;
  const int64_t wanted = cut ? (ENOUGH_TILES + tiles - 1) / tiles : 1;

  const auto cuts_of = [&](int64_t columns) {
    const int64_t most = columns / SMALLEST_CUT, cuts = wanted < most ? wanted : most;
    return cuts > 1 ? cuts : int64_t(1);
  };

  int64_t items = 0;
  for (int64_t p = 0; p < B; ++p)
    items += (plan->rows[p + 1] - plan->rows[p] + TILE - 1) / TILE * cuts_of(plan->columns[p + 1] - plan->columns[p]);
  Item* list = static_cast<Item*>(malloc(sizeof(Item) * items));
  double* partials = cut ? static_cast<double*>(malloc(sizeof(double) * (TILE * OUT + 1) * items)) : 0;
  Boxes<T, SF_D> boxes;
  const bool ready = list && (!cut || partials) && (!(reach > 0) || boxes.allocate(plan->columns, B, BLOCK));
  if (!ready) {
    free(list);
    free(partials);
    return 1;
  }
  int64_t n = 0;
  for (int64_t p = 0; p < B; ++p) {
    const int64_t first = plan->columns[p], columns = plan->columns[p + 1] - first, cuts = cuts_of(columns);
    for (int64_t row = plan->rows[p]; row < plan->rows[p + 1]; row += TILE)
      for (int64_t s = 0; s < cuts; ++s, ++n) {
        const Item item = {p, row, first + cut_at(columns, s, cuts), first + cut_at(columns, s + 1, cuts), cuts > 1 ? partials + n * (TILE * OUT + 1) : 0};
        list[n] = item;
      }
  }
  if (reach > 0)
    share(B, threads, pool, [&](int64_t p) { boxes.fill(p, c.y, [&](int64_t begin, int64_t end) { return column_bad(c, begin, end); }); });

  share(items, threads, pool, [&](int64_t i) {
    const Item& item = list[i];
    const int64_t last = plan->rows[item.problem + 1], rows = item.row + TILE < last ? int64_t(TILE) : last - item.row;
    const FlushDenormals flush;
    const Kernel kernel = kernel_of(c.plan, c.sigma, item.problem);
    double acc[TILE * OUT];
    double* to = item.partial ? item.partial : acc;
    Near<T, SF_D> near = {};
    if (reach > 0) near = boxes.near(item.problem, reach * double(sigma[item.problem]));
    const bool bad = sums(c, kernel, near, item.row, rows, item.column_begin, item.column_end, to);
    if (item.partial) item.partial[TILE * OUT] = bad;
    else store(c, kernel, sigma[item.problem], item.row, rows, acc, bad);
  });

  // The cuts of a tile, added in order.
  for (int64_t i = 0; cut && i < items;) {
    const Item& item = list[i];
    int64_t next = i + 1;
    if (item.partial) {
      for (; next < items && list[next].row == item.row && list[next].problem == item.problem; ++next)
        for (int64_t k = 0; k <= TILE * OUT; ++k) item.partial[k] += list[next].partial[k];
      const int64_t last = plan->rows[item.problem + 1], rows = item.row + TILE < last ? int64_t(TILE) : last - item.row;
      store(c, kernel_of(c.plan, c.sigma, item.problem), sigma[item.problem], item.row, rows, item.partial, item.partial[TILE * OUT] != 0);
    }
    i = next;
  }
  free(list);
  free(partials);
  return 0;
}
