// exp and log of whole vectors, to the last digits of their type: log scales of a few hundred points change in every step of an iteration.
#pragma once
#include "native.h"

// x = n log 2 + f, |f| <= log 2 / 2: with log 2 in two parts, of which n times the first is exact, f is as good as x.
static inline V exp_(V x) {
  constexpr bool single = sizeof(T) == 4;
  const T log2e = T(1.4426950408889634074), magic = single ? T(12582912.0) : T(6755399441055744.0);
  const T high = single ? T(0.693145751953125) : T(6.93147180369123816490e-01), low = single ? T(1.42860682030941723e-6) : T(1.90821492927058770002e-10);
  const V n = (x * log2e + magic) - magic;
  const V f = (x - n * high) - n * low;
  return exp2_(f * log2e) * exp2_(n);
}

// y = 2^e m with m in [1/sqrt 2, sqrt 2), and log m = 2 (z + z^3/3 + z^5/5 + ...) with z = (m - 1) / (m + 1), |z| < 0.172. For y > 0; NaN stays NaN.
static inline V log_(V y) {
  constexpr bool single = sizeof(T) == 4;
  typedef decltype(y < y) I;  // integers of the same size
  constexpr int MANTISSA = single ? 23 : 52, TERMS = single ? 4 : 10;
  const V root = V{} + T(0.70710678118654752440);
  const I bits = (I)y, e = (bits - (I)root) >> MANTISSA;
  const V m = (V)(bits - (e << MANTISSA)), n = __builtin_convertvector(e, V);
  const V z = (m - T(1)) / (m + T(1)), s = z * z;
  V series = V{} + T(1) / T(2 * TERMS + 1);
  SF_UNROLL for (int k = TERMS - 1; k > 0; --k) series = series * s + T(1) / T(2 * k + 1);
  const T high = single ? T(0.693145751953125) : T(6.93147180369123816490e-01), low = single ? T(1.42860682030941723e-6) : T(1.90821492927058770002e-10);
  return n * high + (n * low + (z + z) * (series * s) + (z + z)) + y * T(0);
}
