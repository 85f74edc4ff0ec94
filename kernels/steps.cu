// A step of an explicit Runge-Kutta scheme on a pair of states, and of its adjoint:
//
//   x' = x + sum_k c_k f_k,     y' = y + sign sum_k c_k g_k
//
// in one pass and one launch, since at a few thousand points a launch costs more than what it does.
#ifndef SF_EMULATED
#include "cuda_math.h"
#endif

enum { STEP_THREADS = 256 };

// x and y may both be absent (zero); weights of terms beyond COUNT are not read.
template <class T, int COUNT>
__global__ void __launch_bounds__(STEP_THREADS)
    shapeflow_combine(long long n, double sign, T* out_x, T* out_y, const T* x, const T* y, double c0, const T* f0, const T* g0, double c1, const T* f1,
                      const T* g1, double c2, const T* f2, const T* g2, double c3, const T* f3, const T* g3) {
  const long long i = (long long)(blockIdx.x) * STEP_THREADS + threadIdx.x;
  if (i >= n) return;
  T a = T(c0) * f0[i], b = T(c0) * g0[i];
  if constexpr (COUNT > 1) a += T(c1) * f1[i], b += T(c1) * g1[i];
  if constexpr (COUNT > 2) a += T(c2) * f2[i], b += T(c2) * g2[i];
  if constexpr (COUNT > 3) a += T(c3) * f3[i], b += T(c3) * g3[i];
  out_x[i] = x ? x[i] + a : a;
  out_y[i] = y ? y[i] + T(sign) * b : T(sign) * b;
}
