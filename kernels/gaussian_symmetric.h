// y = K w for one problem of Gaussian kernels in float32 by one block, on tensor cores (d <= 3): every pair of points is met once, K being symmetric.
//
// As in gaussian.h, log2 k of a pair is an inner product of 15 halves: with u = s (x - c), s^2 = 2 log2(e) / sigma^2, every coordinate in two parts of 11
// bits and n = OFFSET / 2 - |u|^2 / 2 in three,
//
//   lane k < 3 of a quad:  row  p1 p1 p2 n_k    column  p1 p2 p1 1
//   lane 3:                row   1  1  1  0     column  n1 n2 n3 1
//
// so that one form, p1 p2 p1 n_k and n1 n2 n3 1, is kept in shared memory for a whole launch, and either is one or two operations away.
//
// A warp takes tiles of SIDE x SIDE. In mma's layout a lane holds 2 columns of 8 and 2 R rows. Sums over columns are added in registers and meet over the
// four lanes of a row once a tile; sums over rows meet over the eight quads, 32 columns at a time, each step halving what a lane is responsible for: 7
// exchanges for 8 sums.
#pragma once
#ifndef SF_EMULATED
#include "cuda_math.h"
#endif
#include "team.h"

typedef unsigned int u32;
typedef unsigned long long u64;

template <int WARPS> struct Symmetric {
  enum {
    R = 4,
    SIDE = 16 * R,
    POLY = 2,    // of 4 R exponentials, those taken off the special-function unit
    OFFSET = 4,  // keeps every exponent above -126; a power of two, taken out of the sums
    POINT = 36   // bytes of shared memory: halves and weight
  };
  static constexpr float LIMIT = 32.0f;  // |u|^2 / 2 up to which results are good

  SF_FN static int padded(int count) { return (count + SIDE - 1) / SIDE * SIDE; }

  // Point i < padded(count), in halves.
  template <int D> SF_FN static void stage(double* memory, int i, const float (&u)[D]) {
    u64* const points = reinterpret_cast<u64*>(memory);
    float norm = 0, hi[3] = {0, 0, 0}, lo[3] = {0, 0, 0};
    SF_UNROLL for (int k = 0; k < D; ++k) {
      hi[k] = round_to_half(u[k]);
      lo[k] = round_to_half(u[k] - hi[k]);
      const float q = hi[k] + lo[k];  // the norm of what is multiplied, so that coincident points stay at distance zero
      norm += q * q;
    }
    norm = 0.5f * OFFSET - 0.5f * norm;
    const float first = round_to_half(norm), second = round_to_half(norm - first), part[3] = {first, second, norm - first - second};
    SF_UNROLL for (int k = 0; k < 3; ++k) points[4 * i + k] = both(pack_halves(hi[k], lo[k]), pack_halves(hi[k], part[k]));
    points[4 * i + 3] = both(pack_halves(part[0], part[1]), pack_halves(part[2], 1.0f));
  }

  // y = scale K w, for `count` points. Blocks of SIDE rows meet in rounds of a tournament: every one meets every other once, and in a round each meets one, so
  // that the warps write to different rows and columns. First each meets itself, and writes. The block's threads meet at the end.
  SF_FN static void product(double* memory, int count, const float* w, float* y, float scale) {
    const int warp = threadIdx.x / 32, blocks = padded(count) / SIDE, others = (blocks - 1) | 1;
    const u64* points = reinterpret_cast<const u64*>(memory);
    float* weights = reinterpret_cast<float*>(memory) + 8 * SIDE * blocks;
    for (int i = threadIdx.x; i < blocks * SIDE; i += 32 * WARPS) weights[i] = i < count ? load_shared(w + i) : 0;
    __syncthreads();
    scale *= 1.0f / (1 << OFFSET);
    for (int round = -1; round < others; ++round) {
      for (int pair = warp; round < 0 ? pair < blocks : 2 * pair < others; pair += WARPS) {
        int a = pair, b = pair;
        if (round >= 0) a = pair ? (round + pair) % others : others, b = (round + others - pair) % others;
        if (a < blocks && b < blocks) tile(points, weights, a, b, count, y, scale);
      }
      __syncthreads();
    }
  }

 private:
  SF_FN static u64 both(u32 low, u32 high) { return low | u64(high) << 32; }

  SF_FN static void tile(const u64* points, const float* weights, int a, int b, int count, float* y, float scale) {
    const int lane = threadIdx.x % 32, quad = lane / 4, side = lane % 4;
    u32 row[R][4];
    float weight[2 * R], sum[2 * R];
    SF_UNROLL for (int r = 0; r < 2 * R; ++r) {
      const int i = a * SIDE + r * 8 + quad;
      const u64 p = points[4 * i + side];
      const u32 low = u32(p), high = u32(p >> 32);
      row[r / 2][r % 2] = side == 3 ? 0x3c003c00u : (low & 0xffffu) * 0x10001u;
      row[r / 2][2 + r % 2] = side == 3 ? 0x3c00u : low >> 16 | (high & 0xffff0000u);
      weight[r] = weights[i], sum[r] = 0;
    }
    _Pragma("unroll 1") for (int part = 0; part < SIDE / 32; ++part) {
      const int j = b * SIDE + part * 32;
      float column[8];
      SF_UNROLL for (int c = 0; c < 4; ++c) {
        const u64 p = points[4 * (j + 8 * c) + lane];
        const float* w = weights + j + 8 * c + 2 * side;
        const float other[2] = {w[0], w[1]};
        float* mine = column + 2 * c;
        mine[0] = mine[1] = 0;
        SF_UNROLL for (int m = 0; m < R; ++m) {
          float k[4];
          mma16816(k, row[m], u32(p), (u32(p >> 32) & 0xffffu) | 0x3c000000u, true);
          SF_UNROLL for (int i = 0; i < 4; ++i) {
            k[i] = i == 0 && m < POLY ? exp2_poly_normal_(k[i]) : exp2_(k[i]);
            sum[2 * m + i / 2] += k[i] * other[i % 2];
            mine[i % 2] += k[i] * weight[2 * m + i / 2];
          }
        }
      }
      SF_UNROLL for (int half = 4; half; half /= 2) meet(column, half, 4 * half);
      const int at = j + quad / 2 * 8 + 2 * side + quad % 2;
      if (a != b && at < count) y[at] += column[0] * scale;
    }
    SF_UNROLL for (int half = R; half >= R / 2; half /= 2) meet(sum, half, half / 2);
    SF_UNROLL for (int r = 0; r < R / 2; ++r) {
      const int i = a * SIDE + (side * R / 2 + r) * 8 + quad;
      if (i < count) y[i] = sum[r] * scale + (a == b ? 0 : y[i]);
    }
  }

  // Of 2 `half` sums of each of two lanes, `mask` apart, each keeps half, with the other's added.
  template <int N> SF_FN static void meet(float (&v)[N], int half, int mask) {
    const bool upper = threadIdx.x & mask;
    SF_UNROLL for (int k = 0; k < N / 2; ++k) {
      if (k >= half) break;
      const float keep = upper ? v[half + k] : v[k], give = upper ? v[k] : v[half + k];
      v[k] = keep + shuffle_xor(give, mask);
    }
  }
};
