// Symmetric Sinkhorn scaling and its linear systems on CUDA: one launch runs every iteration of every problem of a batch (the CPU's is scaling.cpp, the readable
// twin of both is shapeflow/normalization.py).
//
//   scale   l with exp(l) K(exp(l) mu) = 1          l <- l - alpha r + beta (l - l before),  r = l + log K(exp(l) mu)
//   solve   u with (I + H K H) u = right             conjugate gradients,  H = diag(half)
//
// A problem is iterated by a team of blocks until *it* has converged: no host in the loop, no fixed number of steps, and a product is recomputed from positions in
// shared memory, since an exponential is cheaper here than fetching a stored entry from memory. A large batch has teams of one block, whose barriers cost nothing; with
// few problems a team is as many blocks as are resident at once (a cooperative launch), and its barrier is a counter in global memory, about a microsecond.
//
// A product: the 32 lanes of a warp share R rows; each takes every 32nd column, so a column is read from shared memory once for R pairs, a lane adds few numbers (little
// rounding), and a tree over the warp ends it. All sums have one order: same inputs, same bits.
#ifndef SF_EMULATED
#include "cuda_math.h"
#endif
#include "team.h"
#include "radial.h"

#ifdef SF_EMULATED
enum { SCALING_THREADS = 64 };
#else
enum { SCALING_THREADS = 256 };
#endif
enum { WARPS = SCALING_THREADS / 32, CHUNK = 1024 };

template <class T, int D> struct Node {  // a column: position and weight, in whole 16-byte loads
  enum { VECTOR = 16 / sizeof(T), SIZE = (D + 1 + VECTOR - 1) / VECTOR * VECTOR };
  alignas(16) T value[SIZE];
};

// The blocks of one problem. Their barrier also makes what they wrote visible to each other.
struct Team {
  unsigned* counter;  // zero before the launch
  double* partial;    // (2, size)
  int size, member, parity;
  unsigned passed;

  SF_FN void barrier() {
    __syncthreads();
    if (size == 1) return;
    passed += size;
    if (threadIdx.x == 0) meet(counter, passed);
    __syncthreads();
  }

  // The sum over the team of `mine` (`largest`: the maximum), known to every thread; a barrier.
  SF_FN double reduce(double mine, bool largest) {
    __shared__ double box[SCALING_THREADS];
    const int t = threadIdx.x;
    __syncthreads();
    box[t] = mine;
    __syncthreads();
    for (int half = SCALING_THREADS / 2; half > 0; half /= 2) {
      if (t < half) box[t] = join(box[t], box[t + half], largest);
      __syncthreads();
    }
    double all = box[0];
    if (size == 1) return all;
    double* slot = partial + parity * size;
    parity ^= 1;
    if (t == 0) store_shared(slot + member, all);
    barrier();
    all = load_shared(slot);
    for (int k = 1; k < size; ++k) all = join(all, load_shared(slot + k), largest);
    return all;
  }

 private:
  SF_FN static double join(double a, double b, bool largest) { return !largest ? a + b : b > a ? b : a; }
};

template <class T> SF_FN T warp_sum(T v) {
  SF_UNROLL for (int k = 16; k > 0; k /= 2) v += shuffle_xor(v, k);
  return v;
}

// One problem as a block of its team sees it: columns [first, last), own rows [low, high).
template <class T, int D, int R, int... K> struct Matrix {
  Radial<T, K...> kernel;
  const T* x;
  long long first, last, low, high;

  // y = K w for the own rows. The block's threads meet at the end.
  SF_FN void product(const T* w, T* y) const {
    __shared__ Node<T, D> stage[CHUNK];
    const int t = threadIdx.x, lane = t % 32, warp = t / 32;
    for (long long begin = first; begin < last; begin += CHUNK) {
      const int count = last - begin < CHUNK ? int(last - begin) : int(CHUNK);
      for (int c = t; c < count; c += SCALING_THREADS) {
        Node<T, D> node;
        SF_UNROLL for (int k = 0; k < D; ++k) node.value[k] = x[(begin + c) * D + k];
        node.value[D] = load_shared(w + begin + c);
        stage[c] = node;
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
            T r2 = T(0), f0, f1, f2;
            SF_UNROLL for (int k = 0; k < D; ++k) {
              const T d = at[r][k] - node.value[k];
              r2 += d * d;
            }
            kernel(r2, f0, f1, f2);
            sum[r] += f0 * node.value[D];
          }
        }
        SF_UNROLL for (int r = 0; r < R; ++r) {
          const T total = warp_sum(sum[r]) * kernel.scale_v;
          if (lane == 0 && row + r < high) y[row + r] = begin == first ? total : y[row + r] + total;
        }
      }
      __syncthreads();
    }
  }
};

template <class T, int D, int R, int... K>
SF_FN void prepare(Matrix<T, D, R, K...>& matrix, Team& team, const long long* offsets, const T* sigma, const double* terms, double epsilon, const T* x,
                   unsigned* counters, double* partial, long long size) {
  __shared__ Radial<T, K...> shared;
  const long long problem = blockIdx.x / size;
  team = {counters + problem, partial + 2 * size * problem, int(size), int(blockIdx.x % size), 0, 0};
  if (threadIdx.x == 0) shared.set(double(sigma[problem]), terms, terms + sizeof...(K), epsilon);
  __syncthreads();
  matrix.kernel = shared;
  matrix.x = x;
  matrix.first = offsets[problem];
  matrix.last = offsets[problem + 1];
  const long long n = matrix.last - matrix.first;
  matrix.low = matrix.first + n * team.member / size;
  matrix.high = matrix.first + n * (team.member + 1) / size;
}

// l (N,) in and out: a guess that is not finite makes the start a cold one. w (2, N), y and before (N,) are scratch. `left` (B,) keeps the largest residual ever left
// by a problem that missed the tolerance.
template <class T, int D, int R, int... K>
__global__ void __launch_bounds__(SCALING_THREADS, sizeof(T) == 4 ? 3 : 1)
    shapeflow_scale(const long long* offsets, const T* sigma, const double* terms, double epsilon, const T* x, const T* mu, T* l, T* w, T* y, T* before,
                    unsigned* counters, double* partial, double* left, double alpha, double beta, double contraction, double tolerance, double rounding,
                    long long steps, long long size, long long total) {
  Matrix<T, D, R, K...> m;
  Team team;
  prepare(m, team, offsets, sigma, terms, epsilon, x, counters, partial, size);
  const int t = threadIdx.x;

  double mine = 0;
  for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
    if (nonfinite(l[i])) mine = 1;
    store_shared(w + i, mu[i]);
  }
  if (team.reduce(mine, true) > 0) {
    m.product(w, y);
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) l[i] = T(-0.5) * log(y[i]);
  }
  for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
    before[i] = l[i];
    store_shared(w + total + i, exp(l[i]) * mu[i]);  // the other buffer: nobody reads it yet
  }
  team.barrier();
  double worst = 1e300, last = 1e300;
  long long from = total;
  for (long long step = 0; step < steps; ++step) {
    m.product(w + from, y);
    from = total - from;  // written while others may still read the old one; the barrier inside `reduce` is enough
    mine = 0;
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
      const T old = l[i], r = old + log(y[i]), fresh = old - T(alpha) * r + T(beta) * (old - before[i]);
      before[i] = old;
      l[i] = fresh;
      store_shared(w + from + i, exp(fresh) * mu[i]);
      const double size_of = r < 0 ? -double(r) : double(r);
      mine = size_of > mine ? size_of : mine;
    }
    last = worst;
    worst = team.reduce(mine, true);
    if (contraction * worst <= tolerance || (last <= rounding && worst > 0.7 * last)) return;
  }
  if (team.member == 0 && t == 0 && worst > left[blockIdx.x / size]) left[blockIdx.x / size] = worst;
}

// u (N,) in and out: zero where it is not finite. w, y, r, p, image (N,) are scratch.
template <class T, int D, int R, int... K>
__global__ void __launch_bounds__(SCALING_THREADS, sizeof(T) == 4 ? 3 : 1)
    shapeflow_solve(const long long* offsets, const T* sigma, const double* terms, double epsilon, const T* x, const T* half, const T* right, T* u, T* w, T* y, T* r,
                    T* p, unsigned* counters, double* partial, double tolerance, long long steps, long long size) {
  Matrix<T, D, R, K...> m;
  Team team;
  prepare(m, team, offsets, sigma, terms, epsilon, x, counters, partial, size);
  const int t = threadIdx.x;

  double mine = 0, norm = 0;
  for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
    if (nonfinite(u[i])) mine = 1;
    norm += double(right[i]) * double(right[i]);
    store_shared(w + i, half[i] * u[i]);
  }
  norm = team.reduce(norm, false);
  bool cold = team.reduce(mine, true) > 0;
  double square = norm;
  if (!cold) {
    m.product(w, y);
    mine = 0;
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
      r[i] = right[i] - (u[i] + half[i] * y[i]);
      mine += double(r[i]) * double(r[i]);
    }
    square = team.reduce(mine, false);
    cold = !(square < norm);  // a guess worse than none
  }
  if (cold) square = norm;
  for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
    if (cold) u[i] = T(0), r[i] = right[i];
    p[i] = r[i];
  }
  const double goal = tolerance * tolerance * norm + 1e-300;
  for (long long step = 0; step < steps && square > goal; ++step) {
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) store_shared(w + i, half[i] * p[i]);
    team.barrier();
    m.product(w, y);
    mine = 0;
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
      y[i] = p[i] + half[i] * y[i];
      mine += double(p[i]) * double(y[i]);
    }
    const T length = T(square / team.reduce(mine, false));
    mine = 0;
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) {
      u[i] += length * p[i];
      r[i] -= length * y[i];
      mine += double(r[i]) * double(r[i]);
    }
    const double fresh = team.reduce(mine, false);
    const T turn = T(fresh / square);
    for (long long i = m.low + t; i < m.high; i += SCALING_THREADS) p[i] = r[i] + turn * p[i];
    square = fresh;
  }
}
