// v_i = sum_j k(x_i, y_j) b_j: exponents from tensor cores, the sum on the multiply-add units, in the layout in which mma leaves the exponents: a
// lane has 2 columns of 8 and 2 R rows. Four lanes share a row; now and then they add their parts and keep a quarter of the totals each.
#pragma once
#include "gaussian.h"

template <int D, int E, int R> struct Product {
  enum {
    POLY = R >= 4 ? 2 : 0,  // of 4 R exponentials, those taken off the special-function unit, which alone would cap a Hopper card at 3.9e12 pairs a second
    SPACE = CHUNK * int(sizeof(Features)),
    BYTES = SPACE + Payload<E>::BYTES,
    SHARED = 512  // columns that a lane sums before the four lanes of a row meet
  };
  const Rows<PRODUCT, D, E, R>& rows;
  float acc[2 * R][E];
  Sum<float> total[R / 2][E];
  int since;

  SF_FN void note(const Staged<D, E>&) {}
  SF_FN void stage(const Staged<D, E>& column, char* buffer) {
    column.put_exponent(reinterpret_cast<Features*>(buffer)[threadIdx.x]);
    Payload<E>::put(column.b, buffer + SPACE);
  }
  SF_FN void sum(const char* buffer, int tiles, bool last) {
    const u64* f = reinterpret_cast<const u64*>(buffer) + (threadIdx.x & 31);  // of 8 columns
    const float4* p = reinterpret_cast<const float4*>(buffer + SPACE) + (threadIdx.x & 3);
    _Pragma("unroll 2") for (int step = 0; step < tiles; ++step, f += 64, p += 2 * Payload<E>::STEP) {
      SF_UNROLL for (int half = 0; half < 2; ++half) {
        float c[2][4 * Payload<E>::PIECES];
        Payload<E>::get(p + half * Payload<E>::STEP, c);
        SF_UNROLL for (int m = 0; m < R; ++m) {
          float k[4];
          rows.exponents(m, f[32 * half], k);
          SF_UNROLL for (int i = 0; i < 4; ++i) {
            k[i] = m * 4 + i < POLY ? exp2_poly_(k[i]) : exp2_(k[i]);
            SF_UNROLL for (int l = 0; l < E; ++l) acc[2 * m + i / 2][l] += k[i] * c[i % 2][l];
          }
        }
      }
    }
    since += CHUNK;
    if (since >= SHARED || last) share(), since = 0;
  }
  // The four lanes of a row add their sums; each keeps a quarter of the rows.
  SF_FN void share() {
    const int side = threadIdx.x & 3;
    SF_UNROLL for (int l = 0; l < E; ++l) {
      float pair[R];
      SF_UNROLL for (int r = 0; r < R; ++r) {
        const float keep = side & 2 ? acc[R + r][l] : acc[r][l], give = side & 2 ? acc[r][l] : acc[R + r][l];
        pair[r] = keep + shuffle_xor(give, 2);
        acc[r][l] = acc[R + r][l] = 0;
      }
      SF_UNROLL for (int r = 0; r < R / 2; ++r) {
        const float keep = side & 1 ? pair[R / 2 + r] : pair[r], give = side & 1 ? pair[r] : pair[R / 2 + r];
        total[r][l].add(keep + shuffle_xor(give, 1));
      }
    }
  }
  SF_FN void run(Walk<D, float>& walk, char* memory) {
    const int t = threadIdx.x, lane = t & 31, side = lane & 3;
    SF_UNROLL for (int r = 0; r < 2 * R; ++r) {
      SF_UNROLL for (int k = 0; k < E; ++k) acc[r][k] = 0;
    }
    SF_UNROLL for (int r = 0; r < R / 2; ++r) {
      SF_UNROLL for (int k = 0; k < E; ++k) total[r][k].clear();
    }
    since = 0;
    const bool bad = stream<Product, D, E>(*this, rows.call, rows.item, rows.centre, rows.scale, walk, memory);
    const float unit = rows.kernel.scale_v * 0x1p-14f;
    SF_UNROLL for (int q = 0; q < R / 2; ++q) {
      const int r = (side & 2 ? R : 0) + (side & 1 ? R / 2 : 0) + q;
      float out[E];
      SF_UNROLL for (int k = 0; k < E; ++k) out[k] = total[q][k].value() * unit;
      rows.put(out, (t / 32 * R + r / 2) * 16 + lane / 4 + r % 2 * 8, bad);
    }
  }
};
