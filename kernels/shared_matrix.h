// A kernel matrix that stays in the shared memory of the blocks that work on one problem, and what they do with it together.
//
// Every block of a team holds its rows of K and *all* of every vector: a thread holds the elements t, t + THREADS, ... in registers. Vectors are
// updated, and their sums taken, by every block in the same order to the same bits; only a product K w is shared out, and its rows are exchanged. So
// blocks never disagree on when to stop, a result does not depend on how many they are, and one exchange is all that a step of a solver waits for.
//
// An exchange has no barrier: a number travels in one word with the number of its round, and who needs it reads until the round is right (as NCCL's
// low-latency protocol does): one way through the second-level cache, where a barrier is a fence, an atomic, its spreading and a read. Words of two
// rounds lie side by side: who writes round k + 2 has read all of round k + 1, whose writers had read round k.
//
// A product takes the sums of eight rows across a warp together, exchanging halves: nine shuffles instead of forty.
#pragma once
#ifndef SF_EMULATED
#include "cuda_math.h"
#endif
#include "team.h"
#include "radial.h"
#include "pair.h"

#ifdef SF_EMULATED
enum { MATRIX_THREADS = 64 };
#else
enum { MATRIX_THREADS = 512 };
#endif
enum { WARPS = MATRIX_THREADS / 32, GROUP = 8, SUMS = 4, FEWEST_ROWS = 8 };  // mirrored by cuda_field.py

// A number and its round, in words that are read and written whole.
template <class T> struct Letter;
template <> struct Letter<float> {
  enum { WORDS = 1 };
  Word word[1];
  SF_FN void read(const Word* from) { read_word(from, word[0]); }
  SF_FN bool of(unsigned round) const { return unsigned(word[0] >> 32) == round; }
  SF_FN float value() const { return float_of(unsigned(word[0])); }
  SF_FN static void write(Word* to, float v, unsigned round) { write_word(to, Word(round) << 32 | bits_of(v)); }
};
template <> struct Letter<double> {
  enum { WORDS = 2 };
  Word word[2];
  SF_FN void read(const Word* from) { read_words(from, word[0], word[1]); }
  SF_FN bool of(unsigned round) const { return unsigned(word[0] >> 32) == round && unsigned(word[1] >> 32) == round; }
  SF_FN double value() const { return double_of(word[1] << 32 | (word[0] & 0xffffffffu)); }
  SF_FN static void write(Word* to, double v, unsigned round) {
    const Word bits = bits_of(v), tag = Word(round) << 32;
    write_words(to, tag | (bits & 0xffffffffu), tag | bits >> 32);
  }
};

// Sums over a warp of N numbers of each lane, a power of two: lane k gets that of number k / (32 / N).
template <int N, class T> SF_FN T warp_sums(T (&v)[N]) {
  const int lane = threadIdx.x % 32;
  int mask = 16;
  SF_UNROLL for (int half = N / 2; half > 0; half /= 2, mask /= 2) {
    const bool high = lane & mask;
    SF_UNROLL for (int k = 0; k < half; ++k) {
      const T mine = high ? v[k + half] : v[k], other = high ? v[k] : v[k + half];
      v[k] = mine + shuffle_xor(other, mask);
    }
  }
  T sum = v[0];
  SF_UNROLL for (int m = 16 / N; m > 0; m /= 2) sum += shuffle_xor(sum, m);
  return sum;
}

// One problem as a block of its team sees it: rows [low, high) of its n. PER elements of a vector a thread. COLUMNS is the most that an exchange carries.
template <class T, int D, int PER, int COLUMNS, int... K> struct SharedMatrix {
  static constexpr int LETTER = Letter<T>::WORDS;

  Radial<T, K...> kernel;
  long long first;  // row of the batch
  int n, low, high, share;

  // False where the block has nothing to do: nobody waits for it. `mail` (2, N, COLUMNS) letters, of rounds up to `round` or of none.
  SF_FN bool begin(const long long* offsets, const T* sigma, const double* terms, double epsilon, Word* mail_, long long round_, long long total,
                   long long size) {
    const long long problem = blockIdx.x / size, member = blockIdx.x % size;
    first = offsets[problem];
    n = int(offsets[problem + 1] - first);
    share = int((n + size - 1) / size);
    share = share < FEWEST_ROWS ? int(FEWEST_ROWS) : share;
    const long long begin = member * share;
    if (begin >= n) return false;
    low = int(begin);
    high = n - low < share ? n : low + share;
    alone = share >= n;
    mail = mail_ + first * COLUMNS * LETTER, stride = total * COLUMNS * LETTER;
    round = unsigned(round_);
    kernel.set(double(sigma[problem]), terms, terms + sizeof...(K), epsilon);
    totals = dynamic_memory();
    const int padded = (share + GROUP - 1) / GROUP * GROUP;
    parts = reinterpret_cast<T*>(totals + 2 * WARPS * SUMS);
    width = padded * COLUMNS;
    result = parts + 2 * WARPS * width;
    shelf = result + (alone ? n * COLUMNS : 0);
    rows = shelf + n * COLUMNS;
    matrix = rows + share * ROW;
    return true;
  }

  SF_FN bool leader() const { return low == 0 && threadIdx.x == 0; }

  // f(k, i) for the thread's elements: i of the problem's n is its k-th.
  template <class F> SF_FN void each(F f) const {
    SF_UNROLL for (int k = 0; k < PER; ++k) {
      const int i = int(threadIdx.x) + k * MATRIX_THREADS;
      if (i < n) f(k, i);
    }
  }
  SF_FN bool owns(int i) const { return i >= low && i < high; }

  // Fill the own rows of K.
  SF_FN void fill(const T* x) {
    x += first * D;
    each([&](int, int j) {
      T at[D];
      SF_UNROLL for (int c = 0; c < D; ++c) at[c] = x[j * D + c];
      _Pragma("unroll 4") for (int r = 0; r < high - low; ++r) {
        T d[D], f0, f1, f2;
        SF_UNROLL for (int c = 0; c < D; ++c) d[c] = x[(low + r) * D + c] - at[c];
        kernel(dot<D>(d, d), f0, f1, f2);
        matrix[r * n + j] = f0 * kernel.scale_v;
      }
    });
  }

  // y = K w, of C columns.
  template <int C> SF_FN void product(const T (&w)[C][PER], T (&y)[C][PER]) {
    T* box = parts + parity * WARPS * width + threadIdx.x / 32 * width;
    const int count = high - low, lane = threadIdx.x % 32;
    for (int begin = 0; begin < count; begin += GROUP) {
      SF_UNROLL for (int c = 0; c < C; ++c) {
        T sum[GROUP];
        SF_UNROLL for (int r = 0; r < GROUP; ++r) sum[r] = T(0);
        each([&](int k, int j) {
          SF_UNROLL for (int r = 0; r < GROUP; ++r) sum[r] += matrix[(begin + r < count ? begin + r : count - 1) * n + j] * w[c][k];
        });
        const T total = warp_sums<GROUP>(sum);
        if (lane % (32 / GROUP) == 0) box[(begin + lane / (32 / GROUP)) * C + c] = total;
      }
    }
    exchange<C>(y);
  }

  // f(column, row, sums) adds what a pair gives to the N numbers of its row, column(k, j) being that of the thread's k-th element j; the sums over all
  // columns, the first USED of them, are for `exchange` or `store`.
  template <int N, int USED, class C, class F> SF_FN void over_pairs(C column, F f) {
    T* box = parts + parity * WARPS * width + threadIdx.x / 32 * width;
    const int lane = threadIdx.x % 32, m = lane / (32 / N);
    SF_UNROLL for (int k = 0; k < PER; ++k) {
      const int j = int(threadIdx.x) + k * MATRIX_THREADS;
      const auto mine = column(k, j < n ? j : n - 1);
      for (int r = 0; r < high - low; ++r) {
        T sum[N];
        SF_UNROLL for (int s = 0; s < N; ++s) sum[s] = T(0);
        if (j < n) f(mine, rows + r * ROW, sum);
        const T total = warp_sums<N>(sum);
        if (lane % (32 / N) == 0 && m < USED) box[r * USED + m] = k ? box[r * USED + m] + total : total;
      }
    }
  }

  // The sums of `over_pairs` given to everybody.
  template <int C> SF_FN void exchange(T (&y)[C][PER]) {
    T* box = parts + parity * WARPS * width;
    const int count = (high - low) * C;
    ++round;
    Word* place = mail + (round & 1) * stride;
    __syncthreads();
    for (int q = threadIdx.x; q < count; q += MATRIX_THREADS) {
      const T sum = join(box, q);
      if (alone) result[q] = sum;
      else Letter<T>::write(place + (low * C + q) * LETTER, sum, round);
    }
    SF_UNROLL for (int c = 0; c < C; ++c) SF_UNROLL for (int k = 0; k < PER; ++k) y[c][k] = T(0);
    if (alone) {
      __syncthreads();
      each([&](int k, int i) { SF_UNROLL for (int c = 0; c < C; ++c) y[c][k] = result[i * C + c]; });
    } else {
      Letter<T> letter[C][PER];
      bool all;
      do {
        all = true;
        each([&](int k, int i) { SF_UNROLL for (int c = 0; c < C; ++c) letter[c][k].read(place + (i * C + c) * LETTER); });
        each([&](int k, int) { SF_UNROLL for (int c = 0; c < C; ++c) all &= letter[c][k].of(round); });
        if (!all) give_way();
      } while (!all);
      each([&](int k, int) { SF_UNROLL for (int c = 0; c < C; ++c) y[c][k] = letter[c][k].value(); });
    }
    parity ^= 1;
  }

  // The sums of `over_pairs` written where the own rows of a tensor (N, C) are.
  template <int C, class F> SF_FN void store(T* to, F f) {
    T* box = parts + parity * WARPS * width;
    __syncthreads();
    for (int q = threadIdx.x; q < (high - low) * C; q += MATRIX_THREADS) to[(first + low) * C + q] = f(join(box, q));
    parity ^= 1;
  }

  // Sums over the problem of N numbers of each thread, known to every thread.
  template <int N> SF_FN void sums(double (&v)[N]) {
    static_assert(N == 1 || N == 2 || N == SUMS, "halves are exchanged");
    double* box = totals + turn * WARPS * SUMS;
    const int lane = threadIdx.x % 32;
    const double mine = warp_sums<N>(v);
    if (lane % (32 / N) == 0) box[threadIdx.x / 32 * N + lane / (32 / N)] = mine;
    __syncthreads();
    SF_UNROLL for (int m = 0; m < N; ++m) v[m] = box[m];
    SF_UNROLL for (int w = 1; w < WARPS; ++w) SF_UNROLL for (int m = 0; m < N; ++m) v[m] += box[w * N + m];
    turn ^= 1;
  }

  // The largest of a number of each thread, none of them NaN.
  SF_FN double largest(double v) {
    double* box = totals + turn * WARPS * SUMS;
    SF_UNROLL for (int m = 16; m > 0; m /= 2) {
      const double other = shuffle_xor(v, m);
      v = other > v ? other : v;
    }
    if (threadIdx.x % 32 == 0) box[threadIdx.x / 32] = v;
    __syncthreads();
    v = box[0];
    SF_UNROLL for (int w = 1; w < WARPS; ++w) v = box[w] > v ? box[w] : v;
    turn ^= 1;
    return v;
  }

  // Own rows of what pairs are made of, in shared memory: written by `keep`, read by `over_pairs` after a barrier.
  enum { ROW = 2 * D + 2 * COLUMNS };
  SF_FN T* row(int i) const { return rows + (i - low) * ROW; }

  // COLUMNS numbers of an element, put aside by its thread.
  SF_FN T* aside(int i) const { return shelf + i * COLUMNS; }

 private:
  bool alone;
  Word* mail;
  long long stride;
  unsigned round;
  double* totals;  // (2, WARPS, SUMS)
  T *parts, *result, *shelf, *rows, *matrix;  // (2, WARPS, width), (n, COLUMNS) of a team of one, (n, COLUMNS), (share, ROW), (share, n)
  int width, parity = 0, turn = 0;

  SF_FN T join(const T* box, int q) const {
    T sum = box[q];
    SF_UNROLL for (int w = 1; w < WARPS; ++w) sum += box[w * width + q];
    return sum;
  }
};
