// What the sources for the CPU begin with: vectors, radial functions and threads, for numbers SF_REAL and, where they have a kernel, its terms
// SF_TERMS (Name, Name, ...).
#pragma once
#ifndef SF_UNROLL
#define SF_UNROLL _Pragma("GCC unroll 16")
#endif
#define SF_FN static inline __attribute__((always_inline))
#include "simd.h"
#undef SF_FN
#define SF_FN inline __attribute__((always_inline))
#include "plan.h"
#include "threads.h"
#include <stdlib.h>  // and no <math.h>, whose C++ half is an eighth of a compilation: what needs it includes it

typedef SF_REAL T;
typedef Lanes<T>::type V;

// A quiet NaN made of bits, not of arithmetic.
static inline T not_a_number() { return sizeof(T) == 4 ? T(__builtin_nanf("")) : T(__builtin_nan("")); }

#ifdef SF_TERMS
#include "radial.h"
typedef Radial<T, SF_TERMS> Kernel;

static inline Kernel kernel_of(const Plan* plan, const T* sigma, int64_t problem) {
  Kernel kernel;
  kernel.set(double(sigma[problem]), plan->weights, plan->ratios, plan->epsilon);
  return kernel;
}
#endif

// Where part `part` of a symmetric matrix's triangle of `side` rows begins, if all `parts` are equal work: rows above f side hold 1 - (1 - f)^2 of
// it. Whole tiles.
static inline int64_t triangle_cut(int part, int parts, int64_t side, int64_t tile) {
  return part == parts ? side : int64_t((1 - __builtin_sqrt(1 - double(part) / parts)) * double(side)) / tile * tile;
}
