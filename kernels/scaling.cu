// Symmetric Sinkhorn scaling and its linear systems on CUDA: one launch runs every iteration of every problem of a batch (the CPU's is scaling.cpp,
// the readable twin of both is shapeflow/normalization.py).
//
//   scale   l with exp(l) K(exp(l) mu) = 1          l <- l - alpha r + beta (l - l before),  r = l + log K(exp(l) mu)
//   solve   u with (I + H K H) u = right             conjugate gradients,  H = diag(half)
//
// A problem is iterated by a team of blocks until *it* has converged: no host in the loop, no fixed number of steps, and a product is recomputed from
// positions in shared memory, since an exponential is cheaper here than fetching a stored entry from memory. A large batch has teams of one block,
// whose barriers cost nothing; with few problems a team is as many blocks as are resident at once (a cooperative launch), and its barrier is a
// counter in global memory, about a microsecond.
//
// A product by rows: the 32 lanes of a warp share R rows; each takes every 32nd column, so a column is read from shared memory once for R pairs, a
// lane adds few numbers (little rounding), and a tree over the warp ends it. A product of a whole large problem by one block meets every pair once
// instead, K being symmetric (`whole`). An instance for tensor cores (TENSOR: one Gaussian in float32, d <= 3, teams of one block) takes it there for
// each problem that allows it (`stage`). All sums have one order: same inputs, same bits.
#ifndef SF_EMULATED
#include "cuda_math.h"
#endif
#include "team.h"
#include "radial.h"
#include "gaussian_symmetric.h"

#ifdef SF_EMULATED
enum { SCALING_THREADS = 64, LARGE = 100, TENSOR_LARGE = 65 };
#else
enum { SCALING_THREADS = 256, LARGE = 640, TENSOR_LARGE = 257 };  // rows: fewer leave warps without a tile in `whole`
#endif
enum { WARPS = SCALING_THREADS / 32, CHUNK = 1024, SUMS = 4 };

template <class T, int D> struct Node {  // a column: position and weight, in whole 16-byte loads
  enum { VECTOR = 16 / sizeof(T), SIZE = (D + 1 + VECTOR - 1) / VECTOR * VECTOR };
  alignas(16) T value[SIZE];
};

// The blocks of one problem. Their barrier also makes what they wrote visible to each other.
struct Team {
  unsigned* counter;  // zero before the launch
  double* partial;    // (2, SUMS, size)
  int size, member, parity;
  unsigned passed;

  SF_FN void barrier() {
    __syncthreads();
    if (size == 1) return;
    passed += size;
    if (threadIdx.x == 0) meet(counter, passed);
    __syncthreads();
  }

  // Sums over the team of N numbers of each thread (LARGEST: their maxima, none of them NaN), known to every thread; a barrier.
  template <bool LARGEST, int N> SF_FN void reduce(double (&v)[N]) {
    static_assert(N <= SUMS, "cuda_scaling.py allocates no more");
    __shared__ double box[WARPS][N];
    const int t = threadIdx.x;
    SF_UNROLL for (int n = 0; n < N; ++n) v[n] = warp_join<LARGEST>(v[n]);
    __syncthreads();
    SF_UNROLL for (int n = 0; n < N; ++n) if (t % 32 == 0) box[t / 32][n] = v[n];
    __syncthreads();
    SF_UNROLL for (int n = 0; n < N; ++n) {
      v[n] = box[0][n];
      SF_UNROLL for (int k = 1; k < WARPS; ++k) v[n] = join<LARGEST>(v[n], box[k][n]);
    }
    if (size == 1) return;
    double* slots = partial + parity * SUMS * size;
    parity ^= 1;
    SF_UNROLL for (int n = 0; n < N; ++n) if (t == 0) store_shared(slots + n * size + member, v[n]);
    barrier();
    // A lane for each block: one after the other they would take a second-level latency each.
    SF_UNROLL for (int n = 0; n < N; ++n) {
      v[n] = LARGEST ? -1e300 : 0;
      for (int k = t % 32; k < size; k += 32) v[n] = join<LARGEST>(v[n], load_shared(slots + n * size + k));
      v[n] = warp_join<LARGEST>(v[n]);
    }
  }

 private:
  template <bool LARGEST> SF_FN static double join(double a, double b) { return !LARGEST ? a + b : b > a ? b : a; }
  template <bool LARGEST> SF_FN static double warp_join(double v) {
    SF_UNROLL for (int k = 16; k > 0; k /= 2) v = join<LARGEST>(v, shuffle_xor(v, k));
    return v;
  }
};

template <class T> SF_FN T warp_sum(T v) {
  SF_UNROLL for (int k = 16; k > 0; k /= 2) v += shuffle_xor(v, k);
  return v;
}

// One problem as a block of its team sees it: columns [first, last), own rows [low, high).
template <bool TENSOR, class T, int D, int R, int... K> struct Matrix {
  Radial<T, K...> kernel;
  const T* x;
  long long first, last, low, high;
  bool staged;  // all positions are in shared memory already
  bool on_tensor_cores;

  // y = K w for the own rows. The block's threads meet at the end.
  SF_FN void product(const T* w, T* y) {
    if constexpr (TENSOR) {
      if (on_tensor_cores) return Symmetric<WARPS>::product(dynamic_memory(), int(last - first), w + first, y + first, kernel.scale_v);
    }
    if (low == first && high == last && last - first >= LARGE) whole(w, y);
    else by_rows(w, y);
  }

  // Lays the points out for tensor cores, unless they are few, more than there is room for, or some of them many widths away from their centre.
  SF_FN void stage(Team& team, long long room) {
    const int count = int(last - first), t = threadIdx.x;
    const float rate = -2 * kernel.term[0].rate;  // s^2
    if (count < TENSOR_LARGE || count > room || !(rate > 1e-30f && rate < 1e30f)) return;
    double low[D], high[D], norm[1] = {0};
    SF_UNROLL for (int k = 0; k < D; ++k) low[k] = high[k] = -1e300;
    for (int i = t; i < count; i += SCALING_THREADS) {
      SF_UNROLL for (int k = 0; k < D; ++k) {
        const double p = x[(first + i) * D + k];
        high[k] = p > high[k] ? p : high[k];
        low[k] = -p > low[k] ? -p : low[k];
      }
    }
    team.template reduce<true>(low);
    team.template reduce<true>(high);
    const float scale = sqrtf(rate);
    for (int i = t; i < Symmetric<WARPS>::padded(count); i += SCALING_THREADS) {  // past the end the last point, without weight
      float u[D];
      double square = 0;
      SF_UNROLL for (int k = 0; k < D; ++k) {
        u[k] = (x[(first + (i < count ? i : count - 1)) * D + k] - float(0.5 * (high[k] - low[k]))) * scale;
        square += double(u[k]) * u[k];
      }
      if (!(square <= norm[0])) norm[0] = square <= 1e300 ? square : 1e300;
      Symmetric<WARPS>::stage(dynamic_memory(), i, u);
    }
    team.template reduce<true>(norm);
    on_tensor_cores = 0.5 * norm[0] <= Symmetric<WARPS>::LIMIT;
    __syncthreads();
  }

 private:
  // Of the matrix, but for a factor.
  SF_FN T entry(const T* a, const T* b) const {
    T r2 = T(0), f0, f1, f2;
    SF_UNROLL for (int k = 0; k < D; ++k) {
      const T d = a[k] - b[k];
      r2 += d * d;
    }
    kernel(r2, f0, f1, f2);
    return f0;
  }

  // CHUNK of them, in shared memory. What a launch for tensor cores has added is free where they are not used.
  SF_FN static Node<T, D>* chunk() {
    if constexpr (TENSOR) {
      return reinterpret_cast<Node<T, D>*>(dynamic_memory());
    } else {
      __shared__ Node<T, D> nodes[CHUNK];
      return nodes;
    }
  }

  SF_FN void by_rows(const T* w, T* y) {
    Node<T, D>* const stage = chunk();
    const int t = threadIdx.x, lane = t % 32, warp = t / 32;
    for (long long begin = first; begin < last; begin += CHUNK) {
      const int count = last - begin < CHUNK ? int(last - begin) : int(CHUNK);
      for (int c = t; c < count; c += SCALING_THREADS) {
        stage[c].value[D] = load_shared(w + begin + c);
        if (!staged) SF_UNROLL for (int k = 0; k < D; ++k) stage[c].value[k] = x[(begin + c) * D + k];
      }
      __syncthreads();
      for (long long row = low + warp * R; row < high; row += WARPS * R) {
        T at[R][D], sum[R];
        SF_UNROLL for (int r = 0; r < R; ++r) {
          const long long i = row + r < high ? row + r : high - 1;
          sum[r] = T(0);
          SF_UNROLL for (int k = 0; k < D; ++k) at[r][k] = x[i * D + k];
        }
        _Pragma("unroll 2") for (int c = lane; c < count; c += 32) {
          const Node<T, D> node = stage[c];
          SF_UNROLL for (int r = 0; r < R; ++r) {
            sum[r] += entry(at[r], node.value) * node.value[D];
          }
        }
        SF_UNROLL for (int r = 0; r < R; ++r) {
          const T total = warp_sum(sum[r]) * kernel.scale_v;
          if (lane == 0 && row + r < high) y[row + r] = begin == first ? total : y[row + r] + total;
        }
      }
      __syncthreads();
    }
    staged = last - first <= CHUNK;
  }

  // All rows, tile by tile of SIDE x SIDE, in rounds of a tournament: every block of SIDE rows meets every other once, and in a round each meets one,
  // so that the warps write to different rows and columns.
  enum { PER_LANE = 2, SIDE = 32 * PER_LANE };
  SF_FN void whole(const T* w, T* y) const {
    const int warp = threadIdx.x / 32, count = int(last - first), blocks = (count + SIDE - 1) / SIDE, others = (blocks - 1) | 1;
    for (int b = warp; b < blocks; b += WARPS) tile(b, b, count, x + first * D, w + first, y + first);
    __syncthreads();
    for (int round = 0; round < others; ++round) {
      for (int pair = warp; 2 * pair < others; pair += WARPS) {
        const int a = pair ? (round + pair) % others : others, b = (round + others - pair) % others;
        if (a < blocks && b < blocks) tile(a, b, count, x + first * D, w + first, y + first);
      }
      __syncthreads();
    }
  }

  // Rows of block a against columns of block b, and the other way round; a block with itself comes first, and writes. Beyond `count` the last point,
  // without weight.
  //
  // A lane holds rows, and at step s meets column lane ^ s, whose sum travels along: the lane that meets it next is s ^ (s + 1) away.
  SF_FN void tile(int a, int b, int count, const T* x, const T* w, T* y) const {
    __shared__ Node<T, D> columns[WARPS][32];
    const int lane = threadIdx.x % 32;
    Node<T, D>* mine = columns[threadIdx.x / 32];
    const auto node = [&](int i) {
      Node<T, D> out;
      SF_UNROLL for (int k = 0; k < D; ++k) out.value[k] = x[(i < count ? i : count - 1) * D + k];
      out.value[D] = i < count ? load_shared(w + i) : T(0);
      return out;
    };
    Node<T, D> row[PER_LANE];
    T sum[PER_LANE];
    SF_UNROLL for (int r = 0; r < PER_LANE; ++r) row[r] = node(a * SIDE + r * 32 + lane), sum[r] = T(0);
    for (int part = 0; part < PER_LANE; ++part) {
      const int j = b * SIDE + part * 32 + lane;
      warp_barrier();
      mine[lane] = node(j);
      warp_barrier();
      T column = T(0);
      _Pragma("unroll 8") for (int s = 0; s < 32; ++s) {
        const Node<T, D> other = mine[lane ^ s];
        SF_UNROLL for (int r = 0; r < PER_LANE; ++r) {
          const T f = entry(row[r].value, other.value);
          sum[r] += f * other.value[D];
          column += f * row[r].value[D];
        }
        column = shuffle_xor(column, s ^ ((s + 1) % 32));
      }
      if (a != b && j < count) y[j] += column * kernel.scale_v;
    }
    SF_UNROLL for (int r = 0; r < PER_LANE; ++r) {
      const int i = a * SIDE + r * 32 + lane;
      if (i < count) y[i] = sum[r] * kernel.scale_v + (a == b ? T(0) : y[i]);
    }
  }
};

template <bool TENSOR, class T, int D, int R, int... K>
SF_FN void prepare(Matrix<TENSOR, T, D, R, K...>& matrix, Team& team, const long long* offsets, const T* sigma, const double* terms, double epsilon,
                   const T* x, unsigned* counters, double* partial, long long size, long long room) {
  __shared__ Radial<T, K...> shared;
  if constexpr (TENSOR) size = 1;  // so that nothing of a team takes registers
  const long long problem = blockIdx.x / size;
  team = {counters + problem, partial + 2 * SUMS * size * problem, int(size), int(blockIdx.x % size), 0, 0};
  if (threadIdx.x == 0) shared.set(double(sigma[problem]), terms, terms + sizeof...(K), epsilon);
  __syncthreads();
  matrix.kernel = shared;
  matrix.x = x;
  matrix.first = offsets[problem];
  matrix.last = offsets[problem + 1];
  matrix.staged = matrix.on_tensor_cores = false;
  const long long n = matrix.last - matrix.first;
  matrix.low = matrix.first + n * team.member / size;
  matrix.high = matrix.first + n * (team.member + 1) / size;
  if constexpr (TENSOR) matrix.stage(team, room);
}

// l (N,) in and out: a guess that is not finite makes the start a cold one. w (2, N), y and before (N,) are scratch. `left` (B,) keeps the largest
// residual ever left by a problem that missed the tolerance.
template <bool TENSOR, class T, int D, int R, int... K>
__global__ void __launch_bounds__(SCALING_THREADS, sizeof(T) == 4 ? 3 : 1)
    shapeflow_scale(const long long* offsets, const T* sigma, const double* terms, double epsilon, const T* x, const T* mu, T* l, T* w, T* y, T* before,
                    unsigned* counters, double* partial, double* left, double alpha, double beta, double contraction, double tolerance, double rounding,
                    long long steps, long long size, long long total, long long room) {
  Matrix<TENSOR, T, D, R, K...> m;
  Team team;
  prepare(m, team, offsets, sigma, terms, epsilon, x, counters, partial, size, room);
  const int t = threadIdx.x;

  double bad[1] = {0};
  for (long long i = m.low + t; i < m.high; i += SCALING_THREADS)
    if (nonfinite(l[i])) bad[0] = 1;
  team.template reduce<true>(bad);
  const bool cold = bad[0] > 0;
  for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
    before[i] = l[i];
    store_shared(w + i, cold ? mu[i] : exp(l[i]) * mu[i]);
  }
  team.barrier();
  double worst = 1e300, last = 1e300;
  long long from = 0;
  for (long long step = cold ? -1 : 0; step < steps; ++step) {
    m.product(w + from, y);
    from = total - from;  // written while others may still read the old one; the barrier inside `reduce` is enough
    if (step < 0) {
      for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
        before[i] = l[i] = T(-0.5) * log(y[i]);
        store_shared(w + from + i, exp(l[i]) * mu[i]);
      }
      team.barrier();
      continue;
    }
    double largest[1] = {0};
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
      const T old = l[i], r = old + log(y[i]), fresh = old - T(alpha) * r + T(beta) * (old - before[i]);
      before[i] = old;
      l[i] = fresh;
      store_shared(w + from + i, exp(fresh) * mu[i]);
      const double size_of = r < 0 ? -double(r) : double(r);
      largest[0] = size_of > largest[0] ? size_of : largest[0];
    }
    team.template reduce<true>(largest);
    last = worst;
    worst = largest[0];
    if (contraction * worst <= tolerance || (last <= rounding && worst > 0.7 * last)) return;
  }
  if (team.member == 0 && t == 0 && worst > left[blockIdx.x / size]) left[blockIdx.x / size] = worst;
}

// u (N,) in and out: a guess, which is not used if it is worse than none or not finite. w, y, r, p, s (N,) are scratch.
//
// Conjugate gradients with all sums of a step taken at once (Chronopoulos and Gear 1989), since they are barriers: with A r of
// the residual, not A p of the direction,
//   (p, A p) = (r, A r) - beta (r, r) / alpha before,   s = A p = A r + beta s before,   and the next (r, r) = alpha^2 (s, s) - (r, r),
// which says when to stop before another product, to rounding.
template <bool TENSOR, class T, int D, int R, int... K>
__global__ void __launch_bounds__(SCALING_THREADS, sizeof(T) == 4 ? 3 : 1)
    shapeflow_solve(const long long* offsets, const T* sigma, const double* terms, double epsilon, const T* x, const T* half, const T* right, T* u, T* w,
                    T* y, T* r, T* p, T* s, unsigned* counters, double* partial, double tolerance, long long steps, long long size, long long room) {
  Matrix<TENSOR, T, D, R, K...> m;
  Team team;
  prepare(m, team, offsets, sigma, terms, epsilon, x, counters, partial, size, room);
  const int t = threadIdx.x;

  for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) store_shared(w + i, half[i] * u[i]);
  double goal = 0, square = 1, before = 1, length = 1, ss = 0;
  for (long long step = -1; step < steps && square > goal; ++step) {
    team.barrier();
    m.product(w, y);
    if (step < 0) {  // the guess
      double sums[2] = {0, 0};  // of the right-hand side, and of what the guess leaves of it
      for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
        r[i] = right[i] - (u[i] + half[i] * y[i]);
        sums[0] += double(right[i]) * double(right[i]);
        sums[1] += double(r[i]) * double(r[i]);
      }
      team.template reduce<false>(sums);
      const bool cold = !(sums[1] < sums[0]);
      for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
        if (cold) u[i] = T(0), r[i] = right[i];
        p[i] = s[i] = T(0);
        store_shared(w + i, half[i] * r[i]);
      }
      goal = tolerance * tolerance * sums[0] + 1e-300;
      square = cold ? sums[0] : sums[1];
      continue;
    }
    double sums[4] = {0, 0, 0, 0};  // (r, r), (r, A r), (A r, A r), (A r, s)
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
      y[i] = r[i] + half[i] * y[i];
      const double rest = r[i], image = y[i];
      sums[0] += rest * rest;
      sums[1] += rest * image;
      sums[2] += image * image;
      sums[3] += image * double(s[i]);
    }
    team.template reduce<false>(sums);
    if (!(sums[0] > goal)) break;
    const double turn = step == 0 ? 0 : sums[0] / before;
    before = sums[0];
    length = before / (sums[1] - turn * before / length);
    ss = sums[2] + turn * (2 * sums[3] + turn * ss);
    square = length * length * ss - before;
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
      p[i] = r[i] + T(turn) * p[i];
      s[i] = y[i] + T(turn) * s[i];
      u[i] += T(length) * p[i];
      r[i] -= T(length) * s[i];
      store_shared(w + i, half[i] * r[i]);
    }
  }
}
