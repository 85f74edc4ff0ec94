// What one pair (i, j) adds to row i: the whole arithmetic of the operator family, shared by the CPU and CUDA tiles.
//
//   D = x_i - y_j,  c-scaled radial values f0, f1, f2 of radial.h,  s = <a_i, b_j>
//   product    v += f0 b
//   gradient   g += f1 s D
//   fused      both
//   tangent    delta = eta <D', D>,  s' = <a', b> + <a, b'>          (primes are tangents, D' = x' - y')
//              v += f0 b' + f1 delta b
//              g += (f1 s' + f2 delta s) D + f1 s D'
//
// The row's values are V (a SIMD vector of rows on the CPU, a scalar on CUDA), the column's are scalars T.
#pragma once

enum Op { PRODUCT, GRADIENT, FUSED, TANGENT };
enum Mask { HAS_DX = 1, HAS_DA = 2, HAS_DY = 4, HAS_DB = 8 };

template <int OP> constexpr bool wants_v = OP != GRADIENT;
template <int OP> constexpr bool wants_g = OP != PRODUCT;

template <int N, class V, class T> SF_FN V dot(const V* p, const T* q) {
  V s = p[0] * q[0];
  SF_UNROLL for (int k = 1; k < N; ++k) s += p[k] * q[k];
  return s;
}

template <int OP, int D, int E, int MASK, class R, class V, class T>
SF_FN void pair(const R& radial, const V* x, const V* dx, const V* a, const V* da, const T* y, const T* dy, const T* b, const T* db, V* v, V* g) {
  V d[D], f0, f1, f2;
  SF_UNROLL for (int k = 0; k < D; ++k) d[k] = x[k] - y[k];
  // The difference form: points far from the origin lose nothing, and r^2 of coincident points is an exact zero.
  radial(dot<D>(d, d), f0, f1, f2);
  if constexpr (OP == PRODUCT || OP == FUSED) {
    SF_UNROLL for (int k = 0; k < E; ++k) v[k] += f0 * b[k];
  }
  if constexpr (OP == GRADIENT || OP == FUSED) {
    const V h = dot<E>(a, b) * f1;
    SF_UNROLL for (int k = 0; k < D; ++k) g[k] += h * d[k];
  }
  if constexpr (OP == TANGENT) {
    constexpr bool moves = MASK & (HAS_DX | HAS_DY);
    const V s = dot<E>(a, b);
    if constexpr (MASK & HAS_DB) {
      SF_UNROLL for (int k = 0; k < E; ++k) v[k] += f0 * db[k];
    }
    V h = V();
    if constexpr (bool(MASK & HAS_DA) && bool(MASK & HAS_DB)) h = f1 * (dot<E>(da, b) + dot<E>(a, db));
    else if constexpr (MASK & HAS_DA) h = f1 * dot<E>(da, b);
    else if constexpr (MASK & HAS_DB) h = f1 * dot<E>(a, db);
    if constexpr (moves) {
      V dd[D];
      SF_UNROLL for (int k = 0; k < D; ++k) {
        if constexpr (bool(MASK & HAS_DX) && bool(MASK & HAS_DY)) dd[k] = dx[k] - dy[k];
        else if constexpr (MASK & HAS_DX) dd[k] = dx[k];
        else dd[k] = V() - dy[k];
      }
      const V delta = dot<D>(dd, d) * radial.eta;
      const V u = f1 * delta, w = f1 * s;
      SF_UNROLL for (int k = 0; k < E; ++k) v[k] += u * b[k];
      if constexpr (MASK & (HAS_DA | HAS_DB)) h += f2 * delta * s;
      else h = f2 * delta * s;
      SF_UNROLL for (int k = 0; k < D; ++k) g[k] += w * dd[k];
    }
    SF_UNROLL for (int k = 0; k < D; ++k) g[k] += h * d[k];
  }
}
