// What the CUDA kernels share: the work items, compensated sums, and the general tile, which takes any kernel, dtype, d and e by differences x - y.
//
//   - Rows live in registers, R to a thread: one column, read once from shared memory by a whole warp, serves R x 32 pairs.
//   - Columns go through shared memory in chunks, double-buffered: while a chunk is used, each thread's share of the next is already in flight.
//   - Sums run over BLOCK columns in the working precision and are then added with their rounding error (TwoSum): the error does not grow with n.
//   - A column that is not finite is found while it is staged and makes the item's sums NaN; a row likewise when it is stored.
//   - Where far columns may be skipped (shapeflow/ops/backends/nearby.py), columns come in blocks of SPAN with a bounding box each (cuda.cu).
#pragma once
#ifndef SF_EMULATED  // the tests run these files on a CPU, with twins of what follows
#include "cuda_math.h"
#endif
#include "radial.h"
#include "pair.h"

enum { THREADS = 128, BLOCK = 256, STAGE_BYTES = 16384, SPAN = 256 };  // R x THREADS rows a tile

struct Item {  // mirrored by cuda.py; 64-bit throughout
  long long problem, row, row_end, column, column_end;
  long long slot;   // where partial sums go, or -1: the item covers all columns and writes the result
  long long block;  // the bounding box of its first SPAN columns
};

struct Tile {  // a tile whose columns were cut: `cuts` partial sums from `slot` on
  long long row, row_end, slot, cuts;
};

template <class T> struct Sum {
  T high, low;
  SF_FN void clear() { high = low = T(0); }
  SF_FN void add(T v) {  // Knuth's TwoSum: high + low is exact but for the rounding of low
    const T s = high + v, z = s - high;
    low += (high - (s - z)) + (v - z);
    high = s;
  }
  SF_FN T value() const { return high + low; }
};

// One column as it is staged: y, b, then the tangents that are given, padded to whole 16-byte loads.
template <class T, int D, int E, int MASK> struct Column {
  enum {
    B = D,
    DY = D + E,
    DB = DY + (MASK & HAS_DY ? D : 0),
    USED = DB + (MASK & HAS_DB ? E : 0),
    VECTOR = 16 / sizeof(T),
    SIZE = (USED + VECTOR - 1) / VECTOR * VECTOR
  };
  alignas(16) T value[SIZE];

  // Returns whether a value is not finite.
  SF_FN bool load(const T* y, const T* dy, const T* b, const T* db, long long j, long long ldb) {
    SF_UNROLL for (int k = 0; k < D; ++k) value[k] = y[j * D + k];
    SF_UNROLL for (int k = 0; k < E; ++k) value[B + k] = b[j * ldb + k];
    if constexpr (MASK & HAS_DY) {
      SF_UNROLL for (int k = 0; k < D; ++k) value[DY + k] = dy[j * D + k];
    }
    if constexpr (MASK & HAS_DB) {
      SF_UNROLL for (int k = 0; k < E; ++k) value[DB + k] = db[j * ldb + k];
    }
    bool bad = false;
    SF_UNROLL for (int k = 0; k < USED; ++k) bad |= nonfinite(value[k]);
    return bad;
  }
};

template <int N, class T> SF_FN bool load_row(T* to, const T* from) {
  bool bad = false;
  SF_UNROLL for (int k = 0; k < N; ++k) {
    to[k] = from[k];
    bad |= nonfinite(to[k]);
  }
  return bad;
}

// The tensors of a call; features have leading dimensions, because they may be slices.
template <class T> struct Call {
  const T *x, *dx, *a, *da, *y, *dy, *b, *db;
  T *v, *g, *partial;
  long long lda, ldb, ldv;
  const T* boxes;  // of blocks of SPAN columns: low corner, high corner; or null: no column may be skipped
};

// low and high corners over all threads of a block of TEAM, the same on each; `memory` is shared, for 2 D TEAM / 32 numbers.
template <int D, int TEAM, class T> SF_FN void join_boxes(T (&low)[D], T (&high)[D], T* memory) {
  constexpr int WARPS = TEAM / 32;
  SF_UNROLL for (int k = 0; k < D; ++k) {
    SF_UNROLL for (int s = 16; s; s /= 2) {
      low[k] = smaller(low[k], shuffle_xor(low[k], s));
      high[k] = -smaller(-high[k], -shuffle_xor(high[k], s));
    }
    if (threadIdx.x % 32 == 0) memory[2 * k * WARPS + threadIdx.x / 32] = low[k], memory[(2 * k + 1) * WARPS + threadIdx.x / 32] = high[k];
  }
  __syncthreads();
  SF_UNROLL for (int k = 0; k < D; ++k) {
    SF_UNROLL for (int s = 0; s < WARPS; ++s) {
      low[k] = smaller(low[k], memory[2 * k * WARPS + s]);
      high[k] = -smaller(-high[k], -memory[(2 * k + 1) * WARPS + s]);
    }
  }
  __syncthreads();
}
template <class T> constexpr T kHuge = T(sizeof(T) == 4 ? 3e38 : 1e308);

// The bounding box of an item's finite rows, by a block of TEAM threads.
template <int D, int TEAM, class T> SF_FN void row_box(const T* x, const Item& item, int rows, T (&low)[D], T (&high)[D], T* memory) {
  SF_UNROLL for (int k = 0; k < D; ++k) low[k] = kHuge<T>, high[k] = -kHuge<T>;
  for (int place = threadIdx.x; place < rows && item.row + place < item.row_end; place += TEAM) {
    SF_UNROLL for (int k = 0; k < D; ++k) {
      const T p = x[(item.row + place) * D + k];
      if (!nonfinite(p)) low[k] = smaller(low[k], p), high[k] = -smaller(-high[k], -p);
    }
  }
  join_boxes<D, TEAM>(low, high, memory);
}

// Steps through an item's columns, past blocks whose box is farther from the rows' than `reach`. All threads walk together; a warp looks at 32 boxes at once.
template <int D, class T> struct Walk {
  const T* boxes;
  const Item& item;
  const T* rows;  // in shared memory, since it is read once in SPAN columns: the rows' low and high corners, the squared reach
  int word;
  unsigned near;

  SF_FN bool close(int block) const {
    const T* box = boxes + (item.block + block) * 2 * D;
    T r2 = 0;
    SF_UNROLL for (int k = 0; k < D; ++k) {
      const T below = box[k] - rows[D + k], above = rows[k] - box[D + k], gap = below > above ? below : above;
      r2 += gap > 0 ? gap * gap : 0;
      if (gap != gap) return true;  // a block that holds a NaN is never far
    }
    return !(r2 > rows[2 * D]);
  }
  // The first column from j on that counts; j is where a chunk would begin, and chunks divide SPAN.
  SF_FN long long next(long long j) {
    if (!boxes || j >= item.column_end || (j - item.column) % SPAN) return j;
    const int blocks = int((item.column_end - item.column + SPAN - 1) / SPAN);
    for (int block = int((j - item.column) / SPAN); block < blocks; block = (block / 32 + 1) * 32) {
      if (block / 32 != word) {
        word = block / 32;
        const int mine = word * 32 + int(threadIdx.x % 32);
        near = warp_ballot(mine < blocks && close(mine));
      }
      const unsigned left = near >> (block % 32);
      if (left) return item.column + (block + lowest_bit(left)) * (long long)(SPAN);
    }
    return item.column_end;
  }
};

// Row `i` of an item, the one at `place` of its tile: to v and g, or to the partial sums.
template <int OP, int D, int E, int ROWS, class T> SF_FN void store(const Call<T>& c, const Item& item, long long i, int place, int k, T out) {
  constexpr int NV = wants_v<OP> ? E : 0, NG = wants_g<OP> ? D : 0;
  if (item.slot >= 0) c.partial[(item.slot * (NV + NG) + k) * ROWS + place] = out;
  else if (k < NV) c.v[i * c.ldv + k] = out;
  else c.g[i * D + (k - NV)] = out;
}

// The pairs of an item, by a block of TEAM threads with R rows each. `stage_memory` is shared, for STAGE_BYTES bytes twice.
template <int OP, class T, int D, int E, int MASK, int R, int TEAM, int ROWS, class Kernel>
SF_FN void by_differences(const Call<T>& call, const Item& item, const Kernel& kernel, Walk<D, T>& walk, bool invalid, void* stage_memory) {
  typedef Column<T, D, E, MASK> Col;
  constexpr int NV = wants_v<OP> ? E : 0, NG = wants_g<OP> ? D : 0, OUT = NV + NG;
  constexpr int FIT = STAGE_BYTES / int(sizeof(Col)), CHUNK = FIT >= TEAM ? TEAM : FIT >= 64 ? 64 : FIT >= 32 ? 32 : FIT >= 8 ? 8 : 1;
  Col(*stage)[CHUNK] = static_cast<Col(*)[CHUNK]>(stage_memory);
  const int t = threadIdx.x;

  T xr[R][D], dxr[R][D], ar[R][E], dar[R][E];
  bool poison[R];
  SF_UNROLL for (int r = 0; r < R; ++r) {
    long long i = item.row + t + r * TEAM;
    if (i >= item.row_end) i = item.row_end - 1;  // the tail repeats the last row, and is not stored
    poison[r] = load_row<D>(xr[r], call.x + i * D);
    if constexpr (OP != PRODUCT) poison[r] |= load_row<E>(ar[r], call.a + i * call.lda);
    if constexpr (OP == TANGENT && (MASK & HAS_DX)) poison[r] |= load_row<D>(dxr[r], call.dx + i * D);
    if constexpr (OP == TANGENT && (MASK & HAS_DA)) poison[r] |= load_row<E>(dar[r], call.da + i * call.lda);
  }
  Sum<T> total[R][OUT];
  T sv[R][NV + 1], sg[R][NG + 1];
  SF_UNROLL for (int r = 0; r < R; ++r) {
    SF_UNROLL for (int k = 0; k < OUT; ++k) total[r][k].clear();
    SF_UNROLL for (int k = 0; k < NV; ++k) sv[r][k] = T(0);
    SF_UNROLL for (int k = 0; k < NG; ++k) sg[r][k] = T(0);
  }

  bool mine = invalid, bad = false;
  Col next;
  long long j = walk.next(item.column), after;
  if (t < CHUNK && j + t < item.column_end) mine |= next.load(call.y, call.dy, call.b, call.db, j + t, call.ldb);
  int buffer = 0, since = 0;
  for (; j < item.column_end; j = after) {
    if (t < CHUNK && j + t < item.column_end) stage[buffer][t] = next;
    // One barrier a chunk is enough: whoever writes this buffer again has passed the next barrier, so everybody has left it.
    bad |= __syncthreads_or(mine);
    after = walk.next(j + CHUNK);
    if (t < CHUNK && after + t < item.column_end) mine |= next.load(call.y, call.dy, call.b, call.db, after + t, call.ldb);
    const int count = item.column_end - j < CHUNK ? int(item.column_end - j) : CHUNK;
    _Pragma("unroll 2") for (int c = 0; c < count; ++c) {
      const Col column = stage[buffer][c];
      const T* p = column.value;
      SF_UNROLL for (int r = 0; r < R; ++r)
          pair<OP, D, E, MASK>(kernel, xr[r], dxr[r], ar[r], dar[r], p, p + Col::DY, p + Col::B, p + Col::DB, sv[r], sg[r]);
    }
    buffer ^= 1;
    since += count;
    if (since >= BLOCK || after >= item.column_end) {
      since = 0;
      SF_UNROLL for (int r = 0; r < R; ++r) {
        SF_UNROLL for (int k = 0; k < NV; ++k) total[r][k].add(sv[r][k]), sv[r][k] = T(0);
        SF_UNROLL for (int k = 0; k < NG; ++k) total[r][NV + k].add(sg[r][k]), sg[r][k] = T(0);
      }
    }
  }
  bad |= mine;

  SF_UNROLL for (int r = 0; r < R; ++r) {
    const int place = t + r * TEAM;
    const long long i = item.row + place;
    if (place >= ROWS || i >= item.row_end) continue;
    SF_UNROLL for (int k = 0; k < OUT; ++k) {
      T out = total[r][k].value() * (k < NV ? kernel.scale_v : kernel.scale_g);
      if (bad || poison[r]) set_nan(out);
      store<OP, D, E, ROWS>(call, item, i, place, k, out);
    }
  }
}
