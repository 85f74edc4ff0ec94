// What radial.h and pair.h ask of a platform, on CUDA. No system include: the run-time compiler needs no toolkit.
//
// Fast functions are named one by one, each good to 2^-22; there is no --use_fast_math, so that NaN stays NaN and sums keep their order.
#pragma once

#define SF_FN __device__ __forceinline__
#define SF_UNROLL _Pragma("unroll")

SF_FN float exp2_(float t) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(t));
  return r;
}
SF_FN float rsqrt_(float a) {
  float r;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
  return r;
}
SF_FN float rcp_(float a) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
  return r;
}
SF_FN double exp2_(double t) { return exp2(t); }
SF_FN double rsqrt_(double a) { return rsqrt(a); }
SF_FN double rcp_(double a) { return 1.0 / a; }

// Bits, not arithmetic: no flag can optimise these away.
SF_FN bool nonfinite(float v) { return (__float_as_uint(v) & 0x7f800000u) == 0x7f800000u; }
SF_FN bool nonfinite(double v) { return (__double_as_longlong(v) & 0x7ff0000000000000ll) == 0x7ff0000000000000ll; }
SF_FN void set_nan(float& v) { v = __uint_as_float(0x7fffffffu); }
SF_FN void set_nan(double& v) { v = __longlong_as_double(0x7fffffffffffffffll); }

// 2^t without the special-function unit, for t from -126 to 128 and for t <= 128: the nearest integer by a magic number, a polynomial of degree 5 (7.5e-8), and
// the integer added to the exponent.
SF_FN float exp2_poly_normal_(float t) {
  const float z = t + 12582912.0f, f = t - (z - 12582912.0f);
  float p = 1.3276472454890609e-3f;
  p = p * f + 9.675540961325169e-3f;
  p = p * f + 5.550713092088699e-2f;
  p = p * f + 2.4022120237350464e-1f;
  p = p * f + 6.931469440460205e-1f;
  p = p * f + 1.0000001192092896f;
  return __uint_as_float(__float_as_uint(p) + (__float_as_uint(z) << 23));
}
SF_FN float exp2_poly_(float t) { return exp2_poly_normal_(fmaxf(t, -126.0f)); }

// Halves, as bits: no toolkit header.
SF_FN unsigned pack_halves(float low, float high) {
  unsigned r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
SF_FN void unpack_halves(unsigned both, float& low, float& high) {
  asm("{.reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}" : "=f"(low), "=f"(high) : "r"(both));
}
SF_FN float round_to_half(float v) {
  float r;
  asm("{.reg .f16 h; cvt.rn.f16.f32 h, %1; cvt.f32.f16 %0, h;}" : "=f"(r) : "f"(v));
  return r;
}

// The first 11 bits of v: what a half holds exactly, if v is in its range.
SF_FN float eleven_bits(float v) { return __uint_as_float(__float_as_uint(v) & 0xffffe000u); }

// What threads of a warp do together.
template <class T> SF_FN T shuffle_xor(T v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
SF_FN unsigned warp_ballot(bool vote) { return __ballot_sync(0xffffffffu, vote); }
SF_FN int lowest_bit(unsigned bits) { return __ffs(bits) - 1; }
SF_FN float smaller(float a, float b) { return fminf(a, b); }
SF_FN double smaller(double a, double b) { return fmin(a, b); }
SF_FN unsigned warp_max(unsigned v) { return __reduce_max_sync(0xffffffffu, v); }
SF_FN void warp_barrier() { __syncwarp(); }

// c (16 x 8) = a (16 x 16) b (16 x 8), or c += a b. Lane 4q + t holds of a: rows q, q + 8 and columns 2t, 2t + 1 (registers 0, 1), 2t + 8, 2t + 9
// (2, 3); of b: the same numbers as rows of column q; of c: columns 2t, 2t + 1 of row q (0, 1) and of row q + 8 (2, 3).
SF_FN void mma16816(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bool fresh) {
  if (fresh)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
        : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A pointer the compiler cannot see through: what it points to stays in memory, and out of the registers.
template <class T> SF_FN T* in_memory(T* p) {
  asm volatile("" : "+l"(p));
  return p;
}
