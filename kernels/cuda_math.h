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
