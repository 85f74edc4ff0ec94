// What Gaussian sums on tensor cores share: exponents of pairs as one matrix product, rows in fragments, columns on their way to shared memory.
//
// With u = s (x - c), w = s (y - c), s^2 = 2 log2(e) / sigma^2 and c the centre of the block's rows,
//
//   log2 k(x, y) = -|u - w|^2 / 2 = <u, w> - |u|^2 / 2 - |w|^2 / 2
//
// is an inner product of 3 d + 6 <= 15 numbers, and one mma.m16n8k16 makes 128 of them. fp16 operands would leave 11 bits, so coordinates are split in two
// parts of 11 bits and half squared norms in three:
//
//   row     u1  u1  u2  A1 A2 A3   1  1  1        A = 14 - |u|^2 / 2: the 14 brings small k into the range of fp16, for sums by mma
//   column  w1  w2  w1   1  1  1  C1 C2 C3        C = -|w|^2 / 2
//
// Products of 11 bits are exact in float32; what is left out, <u2, w2>, is below 2^-22 |u| |w|. So the error of the exponent is that of a float32 dot form, and
// like it is small only where |u| is.
#pragma once
#include "tile.h"

typedef unsigned int u32;
typedef unsigned long long u64;

enum { TEAM = 256, WARPS = TEAM / 32, CHUNK = TEAM, SLOTS = 16 };  // a thread stages one column of a chunk

// Halves of u16 pairs for lane t of a quad: slots 4t .. 4t + 3 of a row or column. The order of the slots is free, as long as both sides agree.
union Features {
  u32 pair[SLOTS / 2];
  u64 lane[SLOTS / 4];
};

// What slot `s` of a row or a column holds: part p1 or p2 of a coordinate, part of the half norm, or one. A `far` column is too far
// to matter: its exponent is about -30000.
template <int D> SF_FN void exponent_features(const float (&p)[D], float offset, bool row, bool far, Features& out) {
  float hi[D], lo[D], norm = 0, slot[SLOTS];
  SF_UNROLL for (int k = 0; k < D; ++k) {
    hi[k] = round_to_half(p[k]);
    lo[k] = round_to_half(p[k] - hi[k]);
    const float q = hi[k] + lo[k];  // the norm of what is multiplied, so that coincident points stay at distance zero
    norm += q * q;
  }
  norm = far ? -30000.0f : offset - 0.5f * norm;
  const float n1 = round_to_half(norm), n2 = round_to_half(norm - n1), n3 = norm - n1 - n2;
  SF_UNROLL for (int k = 0; k < SLOTS; ++k) slot[k] = 0;
  SF_UNROLL for (int k = 0; k < D; ++k) {
    slot[k] = hi[k];
    slot[D + k] = row ? hi[k] : lo[k];
    slot[2 * D + k] = row ? lo[k] : hi[k];
  }
  const int mine = row ? 3 * D : 3 * D + 3, other = row ? 3 * D + 3 : 3 * D;
  slot[mine] = n1, slot[mine + 1] = n2, slot[mine + 2] = n3;
  slot[other] = slot[other + 1] = slot[other + 2] = 1;
  SF_UNROLL for (int k = 0; k < SLOTS / 2; ++k) out.pair[k] = pack_halves(slot[2 * k], slot[2 * k + 1]);
}

// A power of two that brings numbers up to one, of which these are the bits, to about 2^12, in the range of fp16; and its inverse.
SF_FN float up(u32 most, float& down) {
  const u32 exponent = 266 - (most >> 23) < 253 ? 266 - (most >> 23) : 253;
  down = __uint_as_float((254 - exponent) << 23);
  return __uint_as_float(exponent << 23);
}

// What the multiply-add units sum with, a column's numbers in pieces of four, so that the four lanes of a quad read 64 contiguous bytes:
// [8 columns][even, odd][piece][lane].
template <int N> struct Payload {
  enum { PIECES = (N + 3) / 4, BYTES = CHUNK * PIECES * 16, STEP = 8 * PIECES };  // STEP: from 8 columns to the next

  static SF_FN void put(const float (&value)[N], char* memory) {
    const int t = threadIdx.x;
    float4* to = reinterpret_cast<float4*>(memory);
    SF_UNROLL for (int q = 0; q < PIECES; ++q) {
      float4 four;
      four.x = value[4 * q];
      four.y = 4 * q + 1 < N ? value[4 * q + 1 < N ? 4 * q + 1 : 0] : 0;
      four.z = 4 * q + 2 < N ? value[4 * q + 2 < N ? 4 * q + 2 : 0] : 0;
      four.w = 4 * q + 3 < N ? value[4 * q + 3 < N ? 4 * q + 3 : 0] : 0;
      to[((t / 8 * 2 + t % 2) * PIECES + q) * 4 + t % 8 / 2] = four;
    }
  }
  // This lane's two columns of 8.
  static SF_FN void get(const float4* from, float (&c)[2][4 * PIECES]) {
    SF_UNROLL for (int s = 0; s < 2; ++s) {
      SF_UNROLL for (int q = 0; q < PIECES; ++q) {
        const float4 four = from[(s * PIECES + q) * 4];
        c[s][4 * q] = four.x, c[s][4 * q + 1] = four.y, c[s][4 * q + 2] = four.z, c[s][4 * q + 3] = four.w;
      }
    }
  }
};

// One column in a thread's registers, between memory and shared memory; past the end, and too far to count, it is zeros, and `far`.
template <int D, int E> struct Staged {
  float w[D], b[E];
  bool far;

  // Returns whether a value is not finite.
  SF_FN bool load(const Call<float>& call, const Item& item, long long j, const float (&centre)[D], float scale) {
    float norm = 0, finite = 0;  // 0 * v is NaN where v is not finite
    SF_UNROLL for (int k = 0; k < D; ++k) w[k] = 0;
    SF_UNROLL for (int k = 0; k < E; ++k) b[k] = 0;
    far = true;
    if (j >= item.column_end) return false;
    SF_UNROLL for (int k = 0; k < D; ++k) {
      const float y = call.y[j * D + k];
      finite += 0 * y;
      w[k] = (y - centre[k]) * scale;
      norm += w[k] * w[k];
    }
    SF_UNROLL for (int k = 0; k < E; ++k) {
      b[k] = call.b[j * call.ldb + k];
      finite += 0 * b[k];
    }
    far = !(norm < 900.0f);  // |u| < 11, so |u - w| > 19 and k < 2^-180
    SF_UNROLL for (int k = 0; k < E; ++k) b[k] = far ? 0 : b[k];
    SF_UNROLL for (int k = 0; k < D; ++k) w[k] = far ? 0 : w[k];
    return !(finite == 0);
  }
  SF_FN void put_exponent(Features& to) const { exponent_features(w, 0.0f, false, far, to); }
};

// The rows of a block, as fragments: 16 R rows a warp.
template <int OP, int D, int E, int R> struct Rows {
  enum { COUNT = 16 * R * WARPS, OUT = (wants_v<OP> ? E : 0) + (wants_g<OP> ? D : 0) };

  const Call<float>& call;
  const Item& item;
  const float (&centre)[D];
  const float scale;
  const Radial<float, GAUSSIAN>& kernel;
  u32 fragment[R][4];  // this lane's slots of rows `quad` and `quad + 8` of each 16

  SF_FN void load(char* memory) {
    fragments(memory, fragment, [&](int place, Features& out) {
      float u[D];
      const long long i = item.row + place < item.row_end ? item.row + place : item.row_end - 1;
      SF_UNROLL for (int k = 0; k < D; ++k) u[k] = nonfinite(call.x[i * D + k]) ? 0 : (call.x[i * D + k] - centre[k]) * scale;
      exponent_features(u, 14.0f, true, false, out);
    });
  }
  // What `features(place, out)` says of the row at each place of the tile, as this lane's slots of rows `quad` and `quad + 8` of each 16. By way of shared
  // memory, which is free again afterwards.
  template <class Make> SF_FN void fragments(char* memory, u32 (&to)[R][4], const Make& features) const {
    Features* all = reinterpret_cast<Features*>(memory);
    const int t = threadIdx.x, lane = t & 31, warp = t / 32, quad = lane / 4;
    for (int place = t; place < COUNT; place += TEAM) features(place, all[place]);
    __syncthreads();
    SF_UNROLL for (int m = 0; m < R; ++m) {
      const Features* first = all + (warp * R + m) * 16 + quad;
      const u64 p = first[0].lane[lane & 3], q = first[8].lane[lane & 3];
      to[m][0] = u32(p), to[m][1] = u32(q), to[m][2] = u32(p >> 32), to[m][3] = u32(q >> 32);
    }
    __syncthreads();
  }
  // 128 exponents of row tile m and 8 columns of which `column` is this lane's share, 14 added: t[0], t[1] for row `quad`, t[2], t[3] for row `quad + 8`.
  SF_FN void exponents(int m, u64 column, float (&t)[4]) const { mma16816(t, fragment[m], u32(column), u32(column >> 32), true); }
  SF_FN void put(const float* out, int place, bool bad) const {
    const long long i = item.row + place;
    if (i >= item.row_end) return;
    SF_UNROLL for (int k = 0; k < D; ++k) bad |= nonfinite(call.x[i * D + k]);
    if (OP != PRODUCT) {
      SF_UNROLL for (int k = 0; k < E; ++k) bad |= nonfinite(call.a[i * call.lda + k]);
    }
    SF_UNROLL for (int k = 0; k < OUT; ++k) {
      float value = out[k];
      if (bad) set_nan(value);
      store<OP, D, E, COUNT>(call, item, i, place, k, value);
    }
  }
};

// Takes an item's columns by way of a thread's registers and of shared memory to the sums, a chunk at a time: while one is summed, the next is on its
// way to the registers. Each step is written once, though the first round has nothing to sum and the last nothing to load: short items are bound by
// the fetching of instructions. Returns whether a value is not finite.
template <class Sums, int D, int E>
SF_FN bool stream(Sums& sums, const Call<float>& call, const Item& item, const float (&centre)[D], float scale, Walk<D, float>& walk, char* memory) {
  const int end = int(item.column_end - item.column);
  int loading = int(walk.next(item.column) - item.column), summing = end;
  Staged<D, E> column;
  bool bad = false;
  while (true) {
    const bool last = loading >= end;
    if (!last) bad |= column.load(call, item, item.column + loading + threadIdx.x, centre, scale);
    if (summing < end) sums.sum(memory, end - summing < CHUNK ? (end - summing + 15) / 16 : CHUNK / 16, last);
    if (last) break;
    sums.note(column);
    __syncthreads();  // everybody has left the last chunk
    sums.stage(column, memory);
    __syncthreads();
    summing = loading, loading = int(walk.next(item.column + loading + CHUNK) - item.column);
  }
  return __syncthreads_or(bad);
}
