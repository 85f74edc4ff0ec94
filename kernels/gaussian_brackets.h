// v and g with two inner products of a pair on tensor cores: the exponent of k, and the bracket <a_i, b_j>. What is left for the multiply-add units is
//
//   v_i += k b_j        G_i += q,  M_i += q y_j        with q = k <a_i, b_j>        and at the end        g_i = 2c (x_i G_i - M_i),
//
// 9 issue slots a pair for d = e = 3, and 6 for g alone, instead of 18 by differences. All sums are in float32, so that x G - M, which cancels by a factor
// |u|, may do so as far as the exponent itself is good.
//
// A bracket is 3 e products of 11 bits, exact in float32: a in two halves against b in two halves, without the last product.
//
//   row     a1  a1  a2        column   b1  b2  b1
//
// Rows and columns are scaled to the range of fp16 each by a power of two of its own; a column's is taken back by what q is summed with.
#pragma once
#include "gaussian.h"

template <int OP, int D, int E, int R> struct BracketSums {
  enum {
    NV = wants_v<OP> ? E : 0,
    OUT = NV + D,
    SUMS = NV + 1 + D,  // of a row: v, G, M
    PARTS = (3 * E + SLOTS - 1) / SLOTS,  // matrix products a bracket
    FEATURES = CHUNK * int(sizeof(Features)),
    BYTES = (1 + PARTS) * FEATURES + Payload<SUMS>::BYTES,
    DRAIN = 4,  // chunks, of which a lane sums a quarter of the columns, until float32 sums are moved to the totals
  };
  const Rows<OP, D, E, R>& rows;
  u32 own[PARTS][R][4];  // fragments of a
  float acc[2 * R][SUMS];
  Sum<float>* total;
  int chunks;

  // The halves of a row's or a column's features, scaled.
  static SF_FN float halves(const float (&f)[E], bool row, Features (&out)[PARTS]) {
    float most = 0, slot[PARTS * SLOTS], down;
    SF_UNROLL for (int l = 0; l < E; ++l) most = fmaxf(most, fabsf(f[l]));
    const float scale = up(__float_as_uint(most), down);
    SF_UNROLL for (int s = 0; s < PARTS * SLOTS; ++s) slot[s] = 0;
    SF_UNROLL for (int l = 0; l < E; ++l) {
      const float scaled = f[l] * scale, hi = eleven_bits(scaled), lo = scaled - hi;
      slot[3 * l] = hi, slot[3 * l + 1] = row ? hi : lo, slot[3 * l + 2] = row ? lo : hi;
    }
    SF_UNROLL for (int s = 0; s < PARTS * SLOTS / 2; ++s) out[s / (SLOTS / 2)].pair[s % (SLOTS / 2)] = pack_halves(slot[2 * s], slot[2 * s + 1]);
    return down;
  }
  // The features of the row at `place` of the tile: the last one's beyond the end, zeros where they are not finite.
  SF_FN void features(int place, float (&a)[E]) const {
    const long long i = rows.item.row + place < rows.item.row_end ? rows.item.row + place : rows.item.row_end - 1;
    SF_UNROLL for (int l = 0; l < E; ++l) {
      a[l] = rows.call.a[i * rows.call.lda + l];
      if (nonfinite(a[l])) a[l] = 0;
    }
  }

  SF_FN void note(const Staged<D, E>&) {}
  SF_FN void stage(const Staged<D, E>& column, char* buffer) {
    const int t = threadIdx.x;
    Features both[PARTS];
    column.put_exponent(reinterpret_cast<Features*>(buffer)[t]);
    const float down = halves(column.b, false, both);
    SF_UNROLL for (int p = 0; p < PARTS; ++p) reinterpret_cast<Features*>(buffer)[(1 + p) * CHUNK + t] = both[p];
    float value[SUMS];
    SF_UNROLL for (int k = 0; k < SUMS; ++k) value[k] = k < NV ? column.b[k < E ? k : 0] : k == NV ? down : column.w[k > NV ? k - NV - 1 : 0] * down;
    Payload<SUMS>::put(value, buffer + (1 + PARTS) * FEATURES);
  }
  SF_FN void sum(const char* buffer, int groups, bool last) {
    const u64* f = reinterpret_cast<const u64*>(buffer) + (threadIdx.x & 31);  // of 8 columns
    const float4* p = reinterpret_cast<const float4*>(buffer + (1 + PARTS) * FEATURES) + (threadIdx.x & 3);
    _Pragma("unroll 1") for (int step = 0; step < 2 * groups; ++step, f += 32, p += Payload<SUMS>::STEP) {
      float c[2][4 * Payload<SUMS>::PIECES];
      Payload<SUMS>::get(p, c);
      SF_UNROLL for (int m = 0; m < R; ++m) {
        float k[4], bracket[4];
        rows.exponents(m, f[0], k);
        SF_UNROLL for (int q = 0; q < PARTS; ++q) {
          const u64 column = f[(1 + q) * CHUNK * 4];
          mma16816(bracket, own[q][m], u32(column), u32(column >> 32), q == 0);
        }
        SF_UNROLL for (int i = 0; i < 4; ++i) {
          float(&sums)[SUMS] = acc[2 * m + i / 2];
          const float value = exp2_(k[i]), weighted = value * bracket[i];
          SF_UNROLL for (int l = 0; l < SUMS; ++l) sums[l] += (l < NV ? value : weighted) * c[i % 2][l];
        }
      }
    }
    if (++chunks % DRAIN == 0 || last) {
      SF_UNROLL for (int k = 0; k < 2 * R * SUMS; ++k) {
        float& part = acc[k / SUMS][k % SUMS];
        total[k].add(part);
        part = 0;
      }
    }
  }
  SF_FN void run(Walk<D, float>& walk, char* memory) {
    SF_UNROLL for (int q = 0; q < PARTS; ++q) {
      rows.fragments(memory, own[q], [&](int place, Features& out) {
        float a[E];
        Features both[PARTS];
        features(place, a);
        halves(a, true, both);
        out = both[q];
      });
    }
    // Totals are touched every DRAIN chunks: they live in local memory, and leave the registers to the loop.
    Sum<float> kept[2 * R * SUMS];
    total = in_memory(kept);
    SF_UNROLL for (int k = 0; k < 2 * R * SUMS; ++k) {
      total[k].clear();
      acc[k / SUMS][k % SUMS] = 0;
    }
    chunks = 0;
    const bool bad = stream<BracketSums, D, E>(*this, rows.call, rows.item, rows.centre, rows.scale, walk, memory);
    store(bad);
  }
  // The four lanes of a row add their sums; one of them stores.
  SF_FN void store(bool bad) const {
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, side = lane & 3;
    const float unit_v = rows.kernel.scale_v * 0x1p-14f, unit_g = rows.kernel.scale_g * 0x1p-14f / rows.scale;
    SF_UNROLL for (int r = 0; r < 2 * R; ++r) {
      const int place = (warp * R + r / 2) * 16 + lane / 4 + r % 2 * 8;
      float sum[SUMS], out[OUT];
      SF_UNROLL for (int k = 0; k < SUMS; ++k) {
        sum[k] = total[r * SUMS + k].value();
        sum[k] += shuffle_xor(sum[k], 1);
        sum[k] += shuffle_xor(sum[k], 2);
      }
      const long long i = rows.item.row + place;
      if (side != r % 4 || i >= rows.item.row_end) continue;
      float a[E], down, most = 0;
      features(place, a);
      SF_UNROLL for (int l = 0; l < E; ++l) most = fmaxf(most, fabsf(a[l]));
      up(__float_as_uint(most), down);
      SF_UNROLL for (int k = 0; k < NV; ++k) out[k] = sum[k] * unit_v;
      SF_UNROLL for (int l = 0; l < D; ++l) {
        const float u = (rows.call.x[i * D + l] - rows.centre[l]) * rows.scale;
        out[NV + l] = (u * sum[NV] - sum[NV + 1 + l]) * down * unit_g;
      }
      rows.put(out, place, bad);
    }
  }
};
