// Log-sum-exp and soft-max products of Gaussian interactions on CUDA, for entropic optimal transport (the CPU's are lse.cpp):
//
//   PASS 0   l_i = log sum_j exp(h_j - |x_i - y_j|^2 / sigma^2)
//   PASS 1   v_i = sum_j exp(u_i + h_j - |x_i - y_j|^2 / sigma^2) b_j        (E features; with u = -l the weights of a row sum to one)
//
// Tiles, cuts and staging are those of tile.h; exponents live in units of log 2, h = -inf is a weight of zero. A row of pass 0 keeps its sum as 2^top total.
//
// The online maximum costs nothing a pair, because float does not care where its ones are: `top` need not be the maximum, only near enough that nothing that
// matters overflows or vanishes. It is first guessed from PROBE columns; a chunk is then summed on trust,
//
//   s = sum_j 2^(t_j - top),      t_j - top = rate (r_j^2 + shift) + h_j,      shift = -top / rate = top unit,      rate = -log2(e) / sigma^2,
//
// where `shift` begins the sum of squares, so that subtracting `top` takes no instruction. Since `top` is the exponent of a pair already met, the total is at
// least one or so, and what is lost below it is nothing. Only if s exceeds 2^TRUST, and for rows that have met no weight yet, the chunk is done again with its
// true maximum: in a branch taken by the threads concerned alone, and seldom, because each time `top` rises by more than 50.
#include "tile.h"

enum { PROBE = 8, TRUST = 60 };

constexpr double kLog2e = 1.4426950408889634074;
template <class T> constexpr T kLowest = T(-1e30);  // an exponent of this or less is no weight

template <class T> SF_FN bool no_weight(T h) { return nonfinite(h) && !(h < 0); }  // NaN and +inf; -inf is a weight of zero

// A column as it is staged: y, h in units of log 2, b; padded to whole 16-byte loads.
template <class T, int D, int E> struct Weighted {
  enum { VECTOR = 16 / sizeof(T), SIZE = (D + 1 + E + VECTOR - 1) / VECTOR * VECTOR };
  alignas(16) T value[SIZE];

  // Returns whether the column makes its sums NaN.
  SF_FN bool load(const T* y, const T* h, const T* b, long long j, long long ldb) {
    bool bad = no_weight(h[j]);
    SF_UNROLL for (int k = 0; k < D; ++k) {
      value[k] = y[j * D + k];
      bad |= nonfinite(value[k]);
    }
    value[D] = h[j] * T(kLog2e);
    SF_UNROLL for (int k = 0; k < E; ++k) {
      value[D + 1 + k] = b[j * ldb + k];
      bad |= nonfinite(value[D + 1 + k]);
    }
    return bad;
  }
};

template <int D, class T> SF_FN T squares(const T* x, const T* y, T start) {
  SF_UNROLL for (int k = 0; k < D; ++k) {
    const T d = x[k] - y[k];
    start += d * d;
  }
  return start;
}

// sum_j 2^t_j of R rows as 2^top total.
template <class T, int D, int R> struct Online {
  T x[R][D], top[R], shift[R];
  Sum<T> total[R];

  SF_FN void clear() {
    SF_UNROLL for (int r = 0; r < R; ++r) {
      top[r] = kLowest<T>;
      shift[r] = T(0);
      total[r].clear();
    }
  }

  // Raises `top` to the highest exponent of some columns.
  template <class C> SF_FN void meet(const C* columns, int count, T rate, T unit) {
    T high[R];
    SF_UNROLL for (int r = 0; r < R; ++r) high[r] = top[r];
    _Pragma("unroll 1") for (int c = 0; c < count; ++c) {
      const C column = columns[c];
      SF_UNROLL for (int r = 0; r < R; ++r) {
        const T t = squares<D>(x[r], column.value, T(0)) * rate + column.value[D];
        if (t > high[r]) high[r] = t;
      }
    }
    SF_UNROLL for (int r = 0; r < R; ++r) {
      const T scale = exp2_(top[r] - high[r]);
      total[r].high *= scale;
      total[r].low *= scale;
      top[r] = high[r];
      shift[r] = top[r] * unit;
    }
  }

  // Adds a chunk on trust, or by its true maximum.
  template <class C> SF_FN void add(const C* columns, int count, T rate, T unit) {
    constexpr int UNROLL = sizeof(T) == 4 ? 4 : 2;
    T sum[R];
    SF_UNROLL for (int r = 0; r < R; ++r) sum[r] = T(0);
    _Pragma("unroll UNROLL") for (int c = 0; c < count; ++c) {
      const C column = columns[c];
      SF_UNROLL for (int r = 0; r < R; ++r) sum[r] += exp2_(squares<D>(x[r], column.value, shift[r]) * rate + column.value[D]);
    }
    bool again = false;
    SF_UNROLL for (int r = 0; r < R; ++r) {
      const bool usable = top[r] > kLowest<T> && shift[r] > kLowest<T> && shift[r] < -kLowest<T>;
      again |= !usable || sum[r] > T(1ll << TRUST);
    }
    if (again) {
      meet(columns, count, rate, unit);
      SF_UNROLL for (int r = 0; r < R; ++r) sum[r] = T(0);
      _Pragma("unroll 1") for (int c = 0; c < count; ++c) {
        const C column = columns[c];
        SF_UNROLL for (int r = 0; r < R; ++r) sum[r] += exp2_(squares<D>(x[r], column.value, T(0)) * rate + column.value[D] - top[r]);
      }
    }
    SF_UNROLL for (int r = 0; r < R; ++r) total[r].add(sum[r]);
  }
};

// The logarithm of 2^top sum; nothing but zero weights make it that of an empty sum.
template <class T> SF_FN T logarithm(T top, T sum) { return (top + log2(top > kLowest<T> ? sum : T(0))) * T(0.69314718055994530942); }

template <int PASS, class T, int D, int E, int R>
__global__ void __launch_bounds__(THREADS)
    shapeflow_lse(const Item* items, const T* sigma, const T* x, const T* u, const T* y, const T* h, const T* b, T* v, T* partial, long long ldb,
                  long long ldv) {
  typedef Weighted<T, D, E> Col;
  constexpr int OUT = PASS ? E : 2, TILE = R * THREADS;
  constexpr int FIT = STAGE_BYTES / int(sizeof(Col)), CHUNK = FIT >= THREADS ? THREADS : FIT >= 64 ? 64 : FIT >= 32 ? 32 : FIT >= 8 ? 8 : 1;
  __shared__ Col stage[2][CHUNK];
  __shared__ T scale[2];

  const Item item = items[blockIdx.x];
  const int t = threadIdx.x;
  const double width = double(sigma[item.problem]);
  if (t == 0) {  // a double division: once a block
    scale[0] = T(-kLog2e / (width * width));
    scale[1] = T(width * width / kLog2e);
  }

  T ur[R];
  bool poison[R];
  Online<T, D, R> rows;    // sums of pass 0
  Sum<T> total[R][E + 1];  // of pass 1
  rows.clear();
  SF_UNROLL for (int r = 0; r < R; ++r) {
    long long i = item.row + t + r * THREADS;
    if (i >= item.row_end) i = item.row_end - 1;  // the tail repeats the last row, and is not stored
    poison[r] = load_row<D>(rows.x[r], x + i * D);
    if constexpr (PASS == 1) {
      poison[r] |= no_weight(u[i]);
      ur[r] = u[i] * T(kLog2e);
      SF_UNROLL for (int k = 0; k < E; ++k) total[r][k].clear();
    }
  }
  __syncthreads();
  const T rate = scale[0], unit = scale[1];

  bool mine = !(width > 0) || nonfinite(width), bad = false;
  Col next;
  if (t < CHUNK && item.column + t < item.column_end) mine |= next.load(y, h, b, item.column + t, ldb);
  int buffer = 0;
  for (long long j = item.column; j < item.column_end; j += CHUNK) {
    if (t < CHUNK && j + t < item.column_end) stage[buffer][t] = next;
    bad |= __syncthreads_or(mine);  // one barrier a chunk is enough: see tile.h
    if (t < CHUNK && j + CHUNK + t < item.column_end) mine |= next.load(y, h, b, j + CHUNK + t, ldb);
    const int count = item.column_end - j < CHUNK ? int(item.column_end - j) : CHUNK;
    const Col* columns = stage[buffer];
    if constexpr (PASS == 0) {
      if (j == item.column) rows.meet(columns, count < PROBE ? count : PROBE, rate, unit);
      rows.add(columns, count, rate, unit);
    } else {
      T sum[R][E + 1];
      SF_UNROLL for (int r = 0; r < R; ++r) {
        SF_UNROLL for (int k = 0; k < E; ++k) sum[r][k] = T(0);
      }
      _Pragma("unroll 2") for (int c = 0; c < count; ++c) {
        const Col column = columns[c];
        SF_UNROLL for (int r = 0; r < R; ++r) {
          const T w = exp2_(squares<D>(rows.x[r], column.value, T(0)) * rate + (column.value[D] + ur[r]));
          SF_UNROLL for (int k = 0; k < E; ++k) sum[r][k] += w * column.value[D + 1 + k];
        }
      }
      SF_UNROLL for (int r = 0; r < R; ++r) {
        SF_UNROLL for (int k = 0; k < E; ++k) total[r][k].add(sum[r][k]);
      }
    }
    buffer ^= 1;
  }
  bad |= mine;

  SF_UNROLL for (int r = 0; r < R; ++r) {
    const int place = t + r * THREADS;
    const long long i = item.row + place;
    if (i >= item.row_end) continue;
    T out[OUT];
    if constexpr (PASS == 0) {
      out[0] = item.slot >= 0 ? rows.total[r].value() : logarithm(rows.top[r], rows.total[r].value());
      out[1] = rows.top[r];
    } else {
      SF_UNROLL for (int k = 0; k < OUT; ++k) out[k] = total[r][k].value();
    }
    if (bad || poison[r]) {
      SF_UNROLL for (int k = 0; k < (PASS ? OUT : 1); ++k) set_nan(out[k]);
    }
    if (item.slot >= 0) {
      SF_UNROLL for (int k = 0; k < OUT; ++k) partial[(item.slot * OUT + k) * TILE + place] = out[k];
    } else {
      SF_UNROLL for (int k = 0; k < (PASS ? OUT : 1); ++k) v[i * ldv + k] = out[k];
    }
  }
}

// The cuts of a tile, in order: sums of pass 0 brought to their highest `top`, sums of pass 1 as they are. Grid: (tiles x tile / THREADS, features).
template <int PASS, class T>
__global__ void __launch_bounds__(THREADS)
    shapeflow_lse_reduce(const Tile* tiles, const T* partial, T* v, long long tile, long long features, long long ldv) {
  const long long parts = tile / THREADS, place = blockIdx.x % parts * THREADS + threadIdx.x;
  const Tile one = tiles[blockIdx.x / parts];
  const long long i = one.row + place, k = blockIdx.y, out = PASS ? features : 2;
  if (i >= one.row_end) return;
  const T* from = partial + (one.slot * out + k) * tile + place;
  Sum<T> sum;
  sum.clear();
  if constexpr (PASS == 0) {
    T top = kLowest<T>;
    for (long long s = 0; s < one.cuts; ++s)
      if (from[(2 * s + 1) * tile] > top) top = from[(2 * s + 1) * tile];
    for (long long s = 0; s < one.cuts; ++s) sum.add(from[2 * s * tile] * exp2_(from[(2 * s + 1) * tile] - top));
    T value = logarithm(top, sum.value());
    if (nonfinite(sum.value())) set_nan(value);
    v[i * ldv] = value;
  } else {
    for (long long s = 0; s < one.cuts; ++s) sum.add(from[s * out * tile]);
    v[i * ldv + k] = sum.value();
  }
}
