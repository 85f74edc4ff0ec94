// Gaussian sums in float32 on the tensor cores (d <= 3, compute capability 8.0 on).
//
// A general pair (tile.h) spends 7 of its 11 issue slots on the exponent. Here a tensor core supplies it. With u = s (x - c), w = s (y - c),
// s^2 = 2 log2(e) / sigma^2 and c the centre of the block's rows,
//
//   log2 k(x, y) = -|u - w|^2 / 2 = <u, w> - |u|^2 / 2 - |w|^2 / 2
//
// is an inner product of 3 d + 6 <= 15 numbers, and one mma.m16n8k16 makes 128 of them. fp16 operands would leave 11 bits, so coordinates are split in two
// parts of 11 bits and half squared norms in three:
//
//   row     u1  u1  u2  A1 A2 A3   1  1  1        A = 14 - |u|^2 / 2: the 14 brings small k into the range of fp16, for the sums below
//   column  w1  w2  w1   1  1  1  C1 C2 C3        C = -|w|^2 / 2
//
// Products of 11 bits are exact in float32; what is left out, <u2, w2>, is below 2^-22 |u| |w|. So the error of the exponent is that of a float32 dot form, and
// like it is small only where |u| is: a block whose rows lie farther than LIMIT from their centre takes the general tile instead. It is decided a block at a
// time, on the device, from the rows' bounding box; rows sorted in space are compact.
//
// The sums, two ways:
//   - PRODUCT: v += k b on the multiply-add units, in the layout in which mma leaves k: a lane has 2 columns of 8 and 2 R rows. Four lanes share a row; they add
//     their parts and keep a quarter of the totals each.
//   - GRADIENT and FUSED: since g_i = 2c' sum_j k <a_i, b_j> (x_i - y_j) = 2c' sum_l a_il (x_i v_il - M_il) with M_il = sum_j k b_jl y_j, both results are sums of k times
//     the E (1 + D) features [b, b y] of a column. Those are a second mma, k and the features split in two fp16 parts (k1 f1 + k1 f2 + k2 f1): the fragment that
//     the first mma leaves is the operand that the second takes, no shuffle. Features are scaled to the range of fp16 by a power of two a chunk. Tensor cores
//     truncate when they add, so sums are moved to float32 registers every CHUNK columns, and from there, compensated, to memory every MID chunks.
//
// exp2 of 2 pairs in 16 runs on the multiply-add units (exp2_poly_): the special-function unit alone would cap a Hopper card at 3.9e12 pairs a second.
#include "tile.h"

typedef unsigned int u32;
typedef unsigned long long u64;

enum { TEAM = 256, WARPS = TEAM / 32, CHUNK = 256, SLOTS = 16, MID = 16 };

// Halves of u16 pairs for lane t of a quad: slots 4t .. 4t + 3 of a row or column. The order of the slots is free, as long as both sides agree.
union Features {
  u32 pair[SLOTS / 2];
  u64 lane[SLOTS / 4];
};

// What slot `s` of a row or a column holds: part p1 or p2 of a coordinate, part of the half norm, or one.
template <int D> SF_FN void exponent_features(const float (&p)[D], float offset, bool row, Features& out) {
  float hi[D], lo[D], norm = 0, slot[SLOTS];
  SF_UNROLL for (int k = 0; k < D; ++k) {
    hi[k] = round_to_half(p[k]);
    lo[k] = round_to_half(p[k] - hi[k]);
    const float q = hi[k] + lo[k];  // the norm of what is multiplied, so that coincident points stay at distance zero
    norm += q * q;
  }
  norm = offset - 0.5f * norm;
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

// A column too far to matter: its exponent is about -30000.
template <int D> SF_FN void no_column(Features& out) {
  SF_UNROLL for (int k = 0; k < SLOTS / 2; ++k) out.pair[k] = 0;
  out.pair[(3 * D + 3) / 2] = (3 * D + 3) % 2 ? pack_halves(0, -30000.0f) : pack_halves(-30000.0f, 0);
}

// How the E (1 + D) features of the second mma lie in tiles of 8: first parts, then second parts. What is left over of the first parts shares a tile
// with its second parts if it can. Both parts of k meet the first LOW tiles, k1 alone meets the others.
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

// Shared memory: row features before the loop, then a chunk of columns; afterwards the sums on their way to the thread that stores them.
template <int OP, int D, int E, int R> struct Layout {
  typedef Moments<D, E> M;
  enum {
    ROWS = R * THREADS,
    PIECES = (E + 3) / 4,
    GROUP = 16 * 8 * 2 + 32,  // bytes of one tile of 16 columns by 8 features, padded so that neighbouring tiles start 8 banks apart
    EXPONENTS = CHUNK * int(sizeof(Features)),
    PAYLOAD = OP == PRODUCT ? CHUNK * PIECES * 16 : CHUNK / 16 * M::TILES * GROUP,
    COLUMNS = EXPONENTS + PAYLOAD,
    ROW_BYTES = ROWS * int(sizeof(Features)),
    SUMS = OP == PRODUCT ? 0 : WARPS * 16 * (M::USED + 1) * 4,
    A = COLUMNS > ROW_BYTES ? COLUMNS : ROW_BYTES,
    B = A > SUMS ? A : SUMS,
    BYTES = B > 2 * STAGE_BYTES ? B : 2 * STAGE_BYTES
  };
};

template <int OP, int D, int E, int R> struct Tensor {
  typedef Layout<OP, D, E, R> Shape;
  typedef Moments<D, E> M;
  enum { ROWS = Shape::ROWS, OUT = (wants_v<OP> ? E : 0) + (wants_g<OP> ? D : 0), POLY = R >= 4 ? 2 : 0 };

  const Call<float>& call;
  const Item& item;
  const float (&centre)[D];
  const float scale;
  const Radial<float, GAUSSIAN>& kernel;
  Walk<D, float>& walk;
  char* memory;
  u32 row[R][4];  // fragments of 16 R rows: this lane's slots of rows `quad` and `quad + 8`

  // -- rows and columns ---------------------------------------------------------------------------------------------------------------------------------------

  SF_FN long long row_of(int place) const {
    const long long i = item.row + place;
    return i < item.row_end ? i : item.row_end - 1;
  }
  SF_FN void load_rows() {
    Features* all = reinterpret_cast<Features*>(memory);
    const int t = threadIdx.x, lane = t & 31, warp = t / 32, quad = lane / 4;
    for (int place = t; place < ROWS; place += TEAM) {
      float u[D];
      const float* x = call.x + row_of(place) * D;
      SF_UNROLL for (int k = 0; k < D; ++k) u[k] = nonfinite(x[k]) ? 0 : (x[k] - centre[k]) * scale;
      exponent_features(u, 14.0f, true, all[place]);
    }
    __syncthreads();
    SF_UNROLL for (int m = 0; m < R; ++m) {
      const Features* first = all + (warp * R + m) * 16 + quad;
      const u64 p = first[0].lane[lane & 3], q = first[8].lane[lane & 3];
      row[m][0] = u32(p), row[m][1] = u32(q), row[m][2] = u32(p >> 32), row[m][3] = u32(q >> 32);
    }
  }
  // Column j of the item into w (scaled) and b; returns whether a value is not finite. Past the end, and too far to count: zeros, and `far`.
  SF_FN bool load_column(long long j, float (&w)[D], float (&b)[E], bool& far) const {
    bool bad = false;
    float norm = 0;
    SF_UNROLL for (int k = 0; k < D; ++k) w[k] = 0;
    SF_UNROLL for (int k = 0; k < E; ++k) b[k] = 0;
    far = true;
    if (j >= item.column_end) return false;
    SF_UNROLL for (int k = 0; k < D; ++k) {
      const float y = call.y[j * D + k];
      bad |= nonfinite(y);
      w[k] = (y - centre[k]) * scale;
      norm += w[k] * w[k];
    }
    SF_UNROLL for (int k = 0; k < E; ++k) {
      b[k] = call.b[j * call.ldb + k];
      bad |= nonfinite(b[k]);
    }
    far = !(norm < 900.0f);  // |u| <= 8, so |u - w| >= 22 and k < 2^-240
    if (far) {
      SF_UNROLL for (int k = 0; k < E; ++k) b[k] = 0;
      SF_UNROLL for (int k = 0; k < D; ++k) w[k] = 0;
    }
    return bad;
  }
  // 128 exponents of row tile m and the 8 columns of `features`, exponentiated: k[0], k[1] for row `quad`, k[2], k[3] for row `quad + 8`, times 2^14.
  SF_FN void kernels(int m, const Features* features, float (&k)[4]) const {
    const int lane = threadIdx.x & 31;
    const u64 f = features[lane / 4].lane[lane & 3];
    mma16816(k, row[m], u32(f), u32(f >> 32), true);
    SF_UNROLL for (int i = 0; i < 4; ++i) k[i] = m * 4 + i < POLY ? exp2_poly_(k[i]) : exp2_(k[i]);
  }
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
      store<OP, D, E, ROWS>(call, item, i, place, k, value);
    }
  }

  // -- v on the multiply-add units ----------------------------------------------------------------------------------------------------------------------------

  SF_FN void product(bool mine) {
    constexpr int PIECES = Shape::PIECES, KEPT = R >= 2 ? R / 2 : 1;
    const int t = threadIdx.x, lane = t & 31, quad = lane / 4, side = lane & 3;
    Features* features = reinterpret_cast<Features*>(memory);
    // Four lanes of a quad read 64 contiguous bytes: [8 columns][even, odd][piece][lane]
    float4* payload = reinterpret_cast<float4*>(memory + Shape::EXPONENTS);
    float acc[2 * R][E];
    Sum<float> total[KEPT][E];
    SF_UNROLL for (int r = 0; r < 2 * R; ++r) {
      SF_UNROLL for (int k = 0; k < E; ++k) acc[r][k] = 0;
    }
    SF_UNROLL for (int r = 0; r < KEPT; ++r) {
      SF_UNROLL for (int k = 0; k < E; ++k) total[r][k].clear();
    }
    bool bad = false, odd = false, far;
    float w[D], b[E];
    long long j = walk.next(item.column), after;
    mine |= load_column(j + t, w, b, far);
    for (; j < item.column_end; j = after, odd = !odd) {
      __syncthreads();  // everybody has left the last chunk
      if (far) no_column<D>(features[t]);
      else exponent_features(w, 0.0f, false, features[t]);
      SF_UNROLL for (int q = 0; q < PIECES; ++q) {
        float4 four;
        four.x = b[4 * q];
        four.y = 4 * q + 1 < E ? b[4 * q + 1 < E ? 4 * q + 1 : 0] : 0;
        four.z = 4 * q + 2 < E ? b[4 * q + 2 < E ? 4 * q + 2 : 0] : 0;
        four.w = 4 * q + 3 < E ? b[4 * q + 3 < E ? 4 * q + 3 : 0] : 0;
        payload[((t / 8 * 2 + t % 2) * PIECES + q) * 4 + t % 8 / 2] = four;
      }
      bad |= __syncthreads_or(mine);
      after = walk.next(j + CHUNK);
      mine |= load_column(after + t, w, b, far);
      const long long left = item.column_end - j;
      const int tiles = left < CHUNK ? int(left + 15) / 16 : CHUNK / 16;
      const Features* f = features;
      const float4* p = payload + side;
      _Pragma("unroll 1") for (int step = 0; step < tiles; ++step, f += 16, p += 16 * PIECES) {
        SF_UNROLL for (int half = 0; half < 2; ++half) {
          float c[2][4 * PIECES];
          SF_UNROLL for (int s = 0; s < 2; ++s) {
            SF_UNROLL for (int q = 0; q < PIECES; ++q) {
              const float4 four = p[((half * 2 + s) * PIECES + q) * 4];
              c[s][4 * q] = four.x, c[s][4 * q + 1] = four.y, c[s][4 * q + 2] = four.z, c[s][4 * q + 3] = four.w;
            }
          }
          SF_UNROLL for (int m = 0; m < R; ++m) {
            float k[4];
            kernels(m, f + 8 * half, k);
            SF_UNROLL for (int i = 0; i < 4; ++i) {
              SF_UNROLL for (int l = 0; l < E; ++l) acc[2 * m + i / 2][l] += k[i] * c[i % 2][l];
            }
          }
        }
      }
      if (odd || after >= item.column_end) {  // every 512 columns
        SF_UNROLL for (int l = 0; l < E; ++l) {
          float mean[R];
          SF_UNROLL for (int r = 0; r < R; ++r) {
            const float keep = side & 2 ? acc[R + r][l] : acc[r][l], give = side & 2 ? acc[r][l] : acc[R + r][l];
            mean[r] = keep + shuffle_xor(give, 2);
            acc[r][l] = acc[R + r][l] = 0;
          }
          SF_UNROLL for (int r = 0; r < KEPT; ++r) {
            const float keep = R >= 2 && (side & 1) ? mean[R / 2 + r] : mean[r], give = R >= 2 && !(side & 1) ? mean[R / 2 + r] : mean[r];
            total[r][l].add(keep + shuffle_xor(give, 1));
          }
        }
      }
    }
    bad |= mine;
    const float unit = kernel.scale_v * 0x1p-14f;
    SF_UNROLL for (int q = 0; q < KEPT; ++q) {
      const int r = (side & 2 ? R : 0) + (R >= 2 && (side & 1) ? R / 2 : 0) + q;
      float out[E];
      SF_UNROLL for (int k = 0; k < E; ++k) out[k] = total[q][k].value() * unit;
      if (R >= 2 || !(side & 1)) put(out, (t / 32 * R + r / 2) * 16 + quad + r % 2 * 8, bad);
    }
  }

  // -- v and g as moments, on the tensor cores ----------------------------------------------------------------------------------------------------------------

  SF_FN void moments(bool mine) {
    constexpr int TILES = M::TILES, COUNT = M::COUNT, GROUP = Shape::GROUP;
    const int t = threadIdx.x, lane = t & 31, warp = t / 32, quad = lane / 4, side = lane & 3;
    Features* features = reinterpret_cast<Features*>(memory);
    char* payload = memory + Shape::EXPONENTS;
    __shared__ u32 largest[WARPS];
    float mid[R][TILES][4];
    SF_UNROLL for (int m = 0; m < R; ++m) {
      SF_UNROLL for (int s = 0; s < TILES; ++s) {
        SF_UNROLL for (int i = 0; i < 4; ++i) mid[m][s][i] = 0;
      }
    }
    // Compensated totals are touched every MID chunks: they live in local memory, and leave the registers to the loop.
    Sum<float> kept[R * TILES * 4];
    Sum<float>* total = in_memory(kept);
    SF_UNROLL for (int k = 0; k < R * TILES * 4; ++k) total[k].clear();

    bool bad = false, far;
    int chunks = 0;
    float w[D], b[E];
    long long j = walk.next(item.column), after;
    mine |= load_column(j + t, w, b, far);
    for (; j < item.column_end; j = after) {
      float moment[COUNT], most = 0;
      SF_UNROLL for (int k = 0; k < E; ++k) {
        moment[k] = b[k];
        SF_UNROLL for (int l = 0; l < D; ++l) moment[E + k * D + l] = b[k] * w[l];
      }
      SF_UNROLL for (int k = 0; k < COUNT; ++k) most = fmaxf(most, fabsf(moment[k]));
      const u32 high = warp_max(__float_as_uint(most));  // bits of positive numbers are ordered as the numbers are
      if (lane == 0) largest[warp] = high;
      bad |= __syncthreads_or(mine);  // everybody has left the last chunk, too
      u32 peak = 0;
      SF_UNROLL for (int k = 0; k < WARPS; ++k) peak = largest[k] > peak ? largest[k] : peak;
      // A power of two that brings the largest moment to about 2^12, and its inverse.
      const u32 exponent = 266 - (peak >> 23) < 253 ? 266 - (peak >> 23) : 253;
      const float up = __uint_as_float(exponent << 23), down = __uint_as_float((254 - exponent) << 23);
      if (far) no_column<D>(features[t]);
      else exponent_features(w, 0.0f, false, features[t]);
      // [16 columns][tile][8 features][lane of a quad: columns 2t, 2t+1, 2t+8, 2t+9]
      unsigned short* to = reinterpret_cast<unsigned short*>(payload + t / 16 * TILES * GROUP) + t % 8 / 2 * 4 + t % 16 / 8 * 2 + t % 2;
      if (M::USED > 2 * COUNT) {
        SF_UNROLL for (int s = 0; s < M::USED; ++s) to[s / 8 * (GROUP / 2) + s % 8 * 16] = 0;
      }
      SF_UNROLL for (int k = 0; k < COUNT; ++k) {
        const float scaled = moment[k] * up, hi = round_to_half(scaled);
        const u32 both = pack_halves(hi, scaled - hi);
        const int p = M::first(k), q = M::second(k);
        to[p / 8 * (GROUP / 2) + p % 8 * 16] = static_cast<unsigned short>(both & 0xffff);
        to[q / 8 * (GROUP / 2) + q % 8 * 16] = static_cast<unsigned short>(both >> 16);
      }
      __syncthreads();
      after = walk.next(j + CHUNK);
      mine |= load_column(after + t, w, b, far);
      const long long left = item.column_end - j;
      const int groups = left < CHUNK ? int(left + 15) / 16 : CHUNK / 16;
      float acc[R][TILES][4];
      SF_UNROLL for (int m = 0; m < R; ++m) {
        SF_UNROLL for (int s = 0; s < TILES; ++s) {
          SF_UNROLL for (int i = 0; i < 4; ++i) acc[m][s][i] = 0;
        }
      }
      const Features* f = features;
      const char* from = payload + lane * 8;
      _Pragma("unroll 1") for (int step = 0; step < groups; ++step, f += 16, from += TILES * GROUP) {
        u64 column[TILES];
        SF_UNROLL for (int s = 0; s < TILES; ++s) column[s] = *reinterpret_cast<const u64*>(from + s * GROUP);
        SF_UNROLL for (int m = 0; m < R; ++m) {
          float k[2][4];
          kernels(m, f, k[0]);
          kernels(m, f + 8, k[1]);
          u32 hi[4], lo[4];
          SF_UNROLL for (int i = 0; i < 4; ++i) {
            float p = k[i / 2][i % 2 * 2], q = k[i / 2][i % 2 * 2 + 1], p1, q1;
            hi[i] = pack_halves(p, q);
            unpack_halves(hi[i], p1, q1);
            lo[i] = pack_halves(p - p1, q - q1);
          }
          SF_UNROLL for (int s = 0; s < TILES; ++s) mma16816(acc[m][s], hi, u32(column[s]), u32(column[s] >> 32), false);
          SF_UNROLL for (int s = 0; s < M::LOW; ++s) mma16816(acc[m][s], lo, u32(column[s]), u32(column[s] >> 32), false);
        }
      }
      const bool flush = ++chunks % MID == 0 || after >= item.column_end;
      SF_UNROLL for (int m = 0; m < R; ++m) {
        SF_UNROLL for (int s = 0; s < TILES; ++s) {
          SF_UNROLL for (int i = 0; i < 4; ++i) mid[m][s][i] += acc[m][s][i] * down;
        }
      }
      if (flush) {
        SF_UNROLL for (int m = 0; m < R; ++m) {
          SF_UNROLL for (int s = 0; s < TILES; ++s) {
            SF_UNROLL for (int i = 0; i < 4; ++i) total[(m * TILES + s) * 4 + i].add(mid[m][s][i]), mid[m][s][i] = 0;
          }
        }
      }
    }
    bad |= mine;

    // Each row's sums to one lane, through shared memory, 16 rows of a warp at a time.
    __syncthreads();
    constexpr int STRIDE = M::USED + 1;
    float* sums = reinterpret_cast<float*>(memory) + warp * 16 * STRIDE;
    const float unit_v = kernel.scale_v * 0x1p-14f, unit_g = kernel.scale_g * 0x1p-14f / scale;
    SF_UNROLL for (int m = 0; m < R; ++m) {
      SF_UNROLL for (int s = 0; s < TILES; ++s) {
        SF_UNROLL for (int i = 0; i < 4; ++i) sums[(quad + i / 2 * 8) * STRIDE + s * 8 + 2 * side + i % 2] = total[(m * TILES + s) * 4 + i].value();
      }
      warp_barrier();
      const int place = (warp * R + m) * 16 + lane;
      if (lane < 16 && item.row + place < item.row_end) {
        const float* own = sums + lane * STRIDE;
        const long long i = item.row + place;
        float out[OUT], v[E], g[D];
        SF_UNROLL for (int k = 0; k < E; ++k) v[k] = own[M::first(k)] + own[M::second(k)];
        SF_UNROLL for (int l = 0; l < D; ++l) {
          const float u = (call.x[i * D + l] - centre[l]) * scale;
          g[l] = 0;
          SF_UNROLL for (int k = 0; k < E; ++k)
              g[l] += call.a[i * call.lda + k] * (u * v[k] - (own[M::first(E + k * D + l)] + own[M::second(E + k * D + l)]));
        }
        if (wants_v<OP>) {
          SF_UNROLL for (int k = 0; k < E; ++k) out[k] = v[k] * unit_v;
        }
        SF_UNROLL for (int l = 0; l < D; ++l) out[OUT - D + l] = g[l] * unit_g;
        put(out, place, bad);
      }
      warp_barrier();
    }
  }
};

template <int OP, int D, int E, int R>
__global__ void __launch_bounds__(TEAM, OP == PRODUCT ? (R == 1 && E <= 6 ? 3 : 2) : (R * Moments<D, E>::TILES <= 1 ? 3 : 2))
    shapeflow_gaussian(const Item* items, const float* sigma, const double* terms, double epsilon, const float* x, const float* dx, const float* a,
                       const float* da, const float* y, const float* dy, const float* b, const float* db, float* v, float* g, float* partial, long long lda,
                       long long ldb, long long ldv, const float* boxes, double reach) {
  alignas(16) __shared__ char memory[Layout<OP, D, E, R>::BYTES];
  __shared__ Radial<float, GAUSSIAN> shared_kernel;
  const Item item = items[blockIdx.x];
  const double width = double(sigma[item.problem]);
  if (threadIdx.x == 0) shared_kernel.set(width, terms, terms + 1, epsilon);
  const Call<float> call = {x, dx, a, da, y, dy, b, db, v, g, partial, lda, ldb, ldv, boxes};
  __shared__ float rows[2 * D + 1];
  float centre[D], low[D], high[D], extent = 0;
  row_box<D, TEAM>(x, item, R * THREADS, low, high, reinterpret_cast<float*>(memory));
  rows[2 * D] = float(reach * reach * width * width);
  SF_UNROLL for (int k = 0; k < D; ++k) {
    rows[k] = low[k], rows[D + k] = high[k];  // all threads write the same
    const bool some = low[k] <= high[k];
    centre[k] = some ? 0.5f * low[k] + 0.5f * high[k] : 0;
    const float radius = some ? 0.5f * high[k] - 0.5f * low[k] : 0;
    extent += radius * radius;
  }
  __syncthreads();
  Walk<D, float> walk = {boxes, item, rows, -1, 0};
  const Radial<float, GAUSSIAN> kernel = shared_kernel;
  const bool invalid = !(width > 0) || nonfinite(width);
  const float rate = -2 * kernel.term[0].rate;  // s^2
  // LIMIT: |u|^2 / 2 up to which the exponent is good; x v - M cancels by a factor |u|, so moments ask for less.
  constexpr float LIMIT = OP == PRODUCT ? 32.0f : 8.0f;
  if (!invalid && rate > 1e-30f && rate < 1e30f && 0.5f * extent * rate <= LIMIT) {
    Tensor<OP, D, E, R> tile = {call, item, centre, sqrtf(rate), kernel, walk, memory, {}};
    tile.load_rows();
    if constexpr (OP == PRODUCT) tile.product(false);
    else tile.moments(false);
  } else {
    by_differences<OP, float, D, E, 0, R >= 2 ? R / 2 : 1, TEAM, R * THREADS>(call, item, kernel, walk, invalid, memory);
  }
}
