// Kernel products on CUDA, the general tile: a block computes one item, R x THREADS rows of one problem against a range of its columns (tile.h).
// When the rows alone do not fill the card the columns are cut; each cut writes partial sums, and `shapeflow_reduce` adds them in order.
// No atomics anywhere: same inputs, same bits.
#include "tile.h"

template <int OP, class T, int D, int E, int MASK, int R, int... K>
__global__ void __launch_bounds__(THREADS)
    shapeflow_tile(const Item* items, const T* sigma, const double* terms, double epsilon, const T* x, const T* dx, const T* a, const T* da, const T* y,
                   const T* dy, const T* b, const T* db, T* v, T* g, T* partial, long long lda, long long ldb, long long ldv, const T* boxes, double reach) {
  alignas(16) __shared__ char stage[2 * STAGE_BYTES];
  __shared__ Radial<T, K...> kernel;
  const Item item = items[blockIdx.x];
  const double width = double(sigma[item.problem]);
  if (threadIdx.x == 0) kernel.set(width, terms, terms + sizeof...(K), epsilon);  // double divisions: once a block
  __syncthreads();
  const Call<T> call = {x, dx, a, da, y, dy, b, db, v, g, partial, lda, ldb, ldv, boxes};
  const Radial<T, K...> mine = kernel;
  __shared__ T rows[2 * D + 1];
  if (boxes) {
    T low[D], high[D];
    row_box<D, THREADS>(x, item, R * THREADS, low, high, reinterpret_cast<T*>(stage));
    rows[2 * D] = T(reach * reach * width * width);
    SF_UNROLL for (int k = 0; k < D; ++k) rows[k] = low[k], rows[D + k] = high[k];  // all threads write the same
    __syncthreads();
  }
  Walk<D, T> walk = {boxes, item, rows, -1, 0};
  by_differences<OP, T, D, E, MASK, R, THREADS, R * THREADS>(call, item, mine, walk, !(width > 0) || nonfinite(width), stage);
}

// Adds the cuts of a tile, in order. Grid: (tiles x tile / THREADS, nv + ng).
template <class T>
__global__ void __launch_bounds__(THREADS)
    shapeflow_reduce(const Tile* tiles, const T* partial, T* v, T* g, long long tile, long long nv, long long ng, long long ldv) {
  const long long parts = tile / THREADS, place = blockIdx.x % parts * THREADS + threadIdx.x;
  const Tile one = tiles[blockIdx.x / parts];
  const long long i = one.row + place, k = blockIdx.y, out = nv + ng;
  if (i >= one.row_end) return;
  Sum<T> sum;
  sum.clear();
  _Pragma("unroll 8") for (long long s = 0; s < one.cuts; ++s) sum.add(partial[((one.slot + s) * out + k) * tile + place]);
  if (k < nv) v[i * ldv + k] = sum.value();
  else g[i * ng + (k - nv)] = sum.value();
}

struct Span {  // mirrored by cuda.py
  long long begin, end;
};

// The bounding box of each block of columns, or NaN where a value of the block is not finite. Grid: blocks.
template <class T, int D, int E, int MASK>
__global__ void __launch_bounds__(THREADS) shapeflow_boxes(const Span* spans, const T* y, const T* dy, const T* b, const T* db, T* boxes, long long ldb) {
  __shared__ T memory[2 * D * THREADS / 32];
  const Span span = spans[blockIdx.x];
  T low[D], high[D];
  bool bad = false;
  SF_UNROLL for (int k = 0; k < D; ++k) low[k] = kHuge<T>, high[k] = -kHuge<T>;
  for (long long j = span.begin + threadIdx.x; j < span.end; j += THREADS) {
    Column<T, D, E, MASK> column;
    bad |= column.load(y, dy, b, db, j, ldb);
    SF_UNROLL for (int k = 0; k < D; ++k) low[k] = smaller(low[k], column.value[k]), high[k] = -smaller(-high[k], -column.value[k]);
  }
  bad = __syncthreads_or(bad);
  join_boxes<D, THREADS>(low, high, memory);
  if (threadIdx.x) return;
  SF_UNROLL for (int k = 0; k < D; ++k) {
    if (bad) set_nan(low[k]), set_nan(high[k]);
    boxes[blockIdx.x * 2ll * D + k] = low[k];
    boxes[blockIdx.x * 2ll * D + D + k] = high[k];
  }
}

// Morton codes of n points of d coordinates, of which the first D count: cells of side 1 / scale from `low`, 30 bits interleaved. nearby.py has the twin.
template <class T, int D>
__global__ void __launch_bounds__(THREADS)
    shapeflow_morton(const T* points, long long n, long long d, double low0, double low1, double low2, double scale, unsigned* codes) {
  constexpr int BITS = 30 / D;
  const double low[3] = {low0, low1, low2};
  const long long i = blockIdx.x * (long long)(THREADS) + threadIdx.x;
  if (i >= n) return;
  unsigned code = 0;
  SF_UNROLL for (int k = 0; k < D; ++k) {
    const T place = (points[i * d + k] - T(low[k])) * T(scale);
    const unsigned cell = !(place > 0) ? 0 : place < T(1u << BITS) ? unsigned(place) : (1u << BITS) - 1;  // NaN goes to cell 0
    SF_UNROLL for (int bit = 0; bit < BITS; ++bit) code |= (cell >> bit & 1) << (bit * D + k);
  }
  codes[i] = code;
}

// Low and high corner of every step-th point of x and of y, and the largest width: out (2 d + 1). One block. nearby.py has the twin.
template <class T>
__global__ void __launch_bounds__(4 * THREADS)
    shapeflow_extent(const T* x, long long n, const T* y, long long m, long long samples, long long d, const T* sigma, long long count, T* out) {
  constexpr int TEAM = 4 * THREADS;
  __shared__ T memory[2 * TEAM / 32];
  for (int k = 0; k <= d; ++k) {  // the width comes last, as one more coordinate
    T low[1] = {kHuge<T>}, high[1] = {-kHuge<T>};
    const auto see = [&](const T* p, long long points, long long stride, long long step) {
      for (long long i = threadIdx.x * step; i < points; i += TEAM * step) {
        const T v = p[i * stride];
        low[0] = smaller(low[0], v), high[0] = -smaller(-high[0], -v);
      }
    };
    if (k < d) see(x + k, n, d, n < samples ? 1 : n / samples), see(y + k, m, d, m < samples ? 1 : m / samples);
    else see(sigma, count, 1, 1);
    join_boxes<1, TEAM>(low, high, memory);
    if (threadIdx.x == 0) {
      if (k < d) out[k] = low[0], out[d + k] = high[0];
      else out[2 * d] = high[0];
    }
  }
}
