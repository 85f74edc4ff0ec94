// v and g on tensor cores altogether. Since g_i = 2c' sum_j k <a_i, b_j> (x_i - y_j) = 2c' sum_l a_il (x_i v_il - M_il) with M_il = sum_j k b_jl y_j,
// both results are sums of k times the E (1 + D) features [b, b y] of a column, whatever a is. Those are a second mma, k and the features split in
// two fp16 parts (k1 f1 + k1 f2 + k2 f1): what the first mma leaves is the operand that the second takes, no shuffle. Features are scaled to the
// range of fp16 by a power of two a chunk. Tensor cores truncate when they add, so sums are moved to float32 registers every CHUNK columns, and from
// there, compensated, to memory every MID chunks.
#pragma once
#include "gaussian.h"


// How the features of the second mma lie in tiles of 8: first parts, then second parts. What is left over of the first parts shares a tile with its second
// parts if it can. Both parts of k meet the first LOW tiles, k1 alone meets the others.
template <int D, int E> struct Moments {
  enum {
    COUNT = E * (1 + D),
    WHOLE = COUNT / 8,
    LEFT = COUNT % 8,
    SHARED = LEFT > 0 && LEFT <= 4,
    LOW = WHOLE + (LEFT > 0),
    TILES = 2 * WHOLE + (LEFT == 0 ? 0 : SHARED ? 1 : 2),
    USED = TILES * 8
  };
  static SF_FN constexpr int first(int k) { return k; }
  static SF_FN constexpr int second(int k) { return k < 8 * WHOLE ? LOW * 8 + k : SHARED ? k + 4 : (LOW + WHOLE) * 8 + k - 8 * WHOLE; }
};

template <int OP, int D, int E, int R> struct MomentSums {
  typedef Moments<D, E> M;
  enum {
    MID = 16,
    GROUP = 16 * 8 * 2 + 32,  // bytes of one tile of 16 columns by 8 features, padded so that neighbouring tiles start 8 banks apart
    SPACE = (CHUNK + 16) * int(sizeof(Features)),  // exponents are issued one step ahead, once too often
    COLUMNS = SPACE + CHUNK / 16 * M::TILES * GROUP,
    STRIDE = M::USED + 1,
    SUMS = WARPS * 16 * STRIDE * 4,  // afterwards: the sums on their way to the thread that stores them
    BYTES = COLUMNS > SUMS ? COLUMNS : SUMS
  };
  const Rows<OP, D, E, R>& rows;
  float mid[R][M::TILES][4];
  Sum<float>* total;
  u32* peaks;  // of the warps, in shared memory
  float down;
  int chunks;

  // A bound of a column's moments, for its warp.
  SF_FN void note(const Staged<D, E>& column) {
    float feature = 0, place = 1;
    SF_UNROLL for (int k = 0; k < E; ++k) feature = fmaxf(feature, fabsf(column.b[k]));
    SF_UNROLL for (int l = 0; l < D; ++l) place = fmaxf(place, fabsf(column.w[l]));
    const u32 most = warp_max(__float_as_uint(feature * place));  // bits of positive numbers are ordered as the numbers are
    if (threadIdx.x % 32 == 0) peaks[threadIdx.x / 32] = most;
  }
  // Puts a column where the mma looks for it, times a power of two that brings the chunk's largest moment to about 2^12.
  SF_FN void stage(const Staged<D, E>& column, char* buffer) {
    const int t = threadIdx.x;
    u32 peak = 0;
    SF_UNROLL for (int k = 0; k < WARPS; ++k) peak = peaks[k] > peak ? peaks[k] : peak;
    const float scale = up(peak, down);
    column.put_exponent(reinterpret_cast<Features*>(buffer)[t]);
    // [16 columns][tile][8 features][lane of a quad: columns 2t, 2t+1, 2t+8, 2t+9]
    unsigned short* to = reinterpret_cast<unsigned short*>(buffer + SPACE + t / 16 * M::TILES * GROUP) + t % 8 / 2 * 4 + t % 16 / 8 * 2 + t % 2;
    if (M::USED > 2 * M::COUNT) {
      SF_UNROLL for (int s = 0; s < M::USED; ++s) to[s / 8 * (GROUP / 2) + s % 8 * 16] = 0;
    }
    SF_UNROLL for (int k = 0; k < M::COUNT; ++k) {
      const float feature = column.b[k < E ? k : (k - E) / D] * scale;
      const float moment = k < E ? feature : feature * column.w[k < E ? 0 : (k - E) % D], hi = eleven_bits(moment);
      const u32 both = pack_halves(hi, moment - hi);
      const int p = M::first(k), q = M::second(k);
      to[p / 8 * (GROUP / 2) + p % 8 * 16] = static_cast<unsigned short>(both & 0xffff);
      to[q / 8 * (GROUP / 2) + q % 8 * 16] = static_cast<unsigned short>(both >> 16);
    }
  }
  // mid += k times the moments of a chunk.
  SF_FN void sum(const char* buffer, int groups, bool last) {
    float acc[R][M::TILES][4], t[R][2][4];
    SF_UNROLL for (int m = 0; m < R; ++m) {
      SF_UNROLL for (int s = 0; s < M::TILES; ++s) {
        SF_UNROLL for (int i = 0; i < 4; ++i) acc[m][s][i] = 0;
      }
    }
    const u64* f = reinterpret_cast<const u64*>(buffer) + (threadIdx.x & 31);  // of 8 columns
    const char* from = buffer + SPACE + (threadIdx.x & 31) * 8;
    SF_UNROLL for (int m = 0; m < R; ++m) {
      rows.exponents(m, f[0], t[m][0]);
      rows.exponents(m, f[32], t[m][1]);
    }
    _Pragma("unroll 2") for (int step = 0; step < groups; ++step, from += M::TILES * GROUP) {
      u64 column[M::TILES];
      SF_UNROLL for (int s = 0; s < M::TILES; ++s) column[s] = *reinterpret_cast<const u64*>(from + s * GROUP);
      f += 64;
      SF_UNROLL for (int m = 0; m < R; ++m) {
        float k[8];
        SF_UNROLL for (int i = 0; i < 8; ++i) k[i] = exp2_(t[m][i / 4][i % 4]);
        rows.exponents(m, f[0], t[m][0]);  // of the next step, while this one's kernels are split and summed
        rows.exponents(m, f[32], t[m][1]);
        u32 hi[4], lo[4];
        SF_UNROLL for (int i = 0; i < 4; ++i) {
          float p, q;
          hi[i] = pack_halves(k[2 * i], k[2 * i + 1]);
          unpack_halves(hi[i], p, q);
          lo[i] = pack_halves(k[2 * i] - p, k[2 * i + 1] - q);
        }
        SF_UNROLL for (int s = 0; s < M::TILES; ++s) mma16816(acc[m][s], hi, u32(column[s]), u32(column[s] >> 32), false);
        SF_UNROLL for (int s = 0; s < M::LOW; ++s) mma16816(acc[m][s], lo, u32(column[s]), u32(column[s] >> 32), false);
      }
    }
    SF_UNROLL for (int m = 0; m < R; ++m) {
      SF_UNROLL for (int s = 0; s < M::TILES; ++s) {
        SF_UNROLL for (int i = 0; i < 4; ++i) mid[m][s][i] += acc[m][s][i] * down;
      }
    }
    if (++chunks % MID == 0 || last) {
      SF_UNROLL for (int k = 0; k < R * M::TILES * 4; ++k) {
        float& part = mid[k / (M::TILES * 4)][k / 4 % M::TILES][k % 4];
        total[k].add(part);
        part = 0;
      }
    }
  }
  SF_FN void run(Walk<D, float>& walk, char* memory) {
    __shared__ u32 shared_peaks[WARPS];
    peaks = shared_peaks;
    // Compensated totals are touched every MID chunks: they live in local memory, and leave the registers to the loop.
    Sum<float> kept[R * M::TILES * 4];
    total = in_memory(kept);
    SF_UNROLL for (int k = 0; k < R * M::TILES * 4; ++k) {
      total[k].clear();
      mid[k / (M::TILES * 4)][k / 4 % M::TILES][k % 4] = 0;
    }
    chunks = 0;
    const bool bad = stream<MomentSums, D, E>(*this, rows.call, rows.item, rows.centre, rows.scale, walk, memory);
    store(bad, reinterpret_cast<float*>(memory) + threadIdx.x / 32 * 16 * STRIDE);
  }
  // Each row's sums to one lane, through shared memory, 16 rows of a warp at a time.
  SF_FN void store(bool bad, float* sums) const {
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, quad = lane / 4, side = lane & 3;
    const float unit_v = rows.kernel.scale_v * 0x1p-14f, unit_g = rows.kernel.scale_g * 0x1p-14f / rows.scale;
    SF_UNROLL for (int m = 0; m < R; ++m) {
      SF_UNROLL for (int s = 0; s < M::TILES; ++s) {
        SF_UNROLL for (int i = 0; i < 4; ++i) sums[(quad + i / 2 * 8) * STRIDE + s * 8 + 2 * side + i % 2] = total[(m * M::TILES + s) * 4 + i].value();
      }
      warp_barrier();
      const int place = (warp * R + m) * 16 + lane;
      const long long i = rows.item.row + place;
      if (lane < 16 && i < rows.item.row_end) {
        const float* own = sums + lane * STRIDE;
        float out[Rows<OP, D, E, R>::OUT], v[E], g[D];
        SF_UNROLL for (int k = 0; k < E; ++k) v[k] = own[M::first(k)] + own[M::second(k)];
        SF_UNROLL for (int l = 0; l < D; ++l) {
          const float u = (rows.call.x[i * D + l] - rows.centre[l]) * rows.scale;
          g[l] = 0;
          SF_UNROLL for (int k = 0; k < E; ++k)
              g[l] += rows.call.a[i * rows.call.lda + k] * (u * v[k] - (own[M::first(E + k * D + l)] + own[M::second(E + k * D + l)]));
        }
        if (wants_v<OP>) {
          SF_UNROLL for (int k = 0; k < E; ++k) out[k] = v[k] * unit_v;
        }
        SF_UNROLL for (int l = 0; l < D; ++l) out[Rows<OP, D, E, R>::OUT - D + l] = g[l] * unit_g;
        rows.put(out, place, bad);
      }
      warp_barrier();
    }
  }
};
