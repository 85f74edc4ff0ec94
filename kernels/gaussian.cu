// Gaussian sums in float32 on the tensor cores (d <= 3, compute capability 8.0 on).
//
// A general pair (tile.h) spends 7 of its 11 issue slots on the exponent. Here a tensor core supplies it (gaussian.h), by a dot form that is good
// while a block's rows are within a few widths of their centre. It is decided a block at a time, on the device, by the row farthest from the centre of
// their bounding box: wider blocks take the general tile. Rows sorted in space are compact. The sums: gaussian_product.h, gaussian_moments.h and
// gaussian_brackets.h.
#include "gaussian_product.h"
#include "gaussian_moments.h"
#include "gaussian_brackets.h"

template <bool FIRST, class A, class B> struct Either {
  typedef A type;
};
template <class A, class B> struct Either<false, A, B> {
  typedef B type;
};
// How v and g are summed: as moments while these are few, else by brackets.
template <int OP, int D, int E, int R> struct Choice {
  typedef typename Either<(E * (1 + D) <= 12), MomentSums<OP, D, E, R>, BracketSums<OP, D, E, R>>::type Sums;
};
template <int D, int E, int R> struct Choice<PRODUCT, D, E, R> {
  typedef Product<D, E, R> Sums;
};
constexpr float LIMIT = 56.0f;  // |u|^2 / 2 of a block's rows up to which exponents are good; mirrored by cuda.py

template <int OP, int D, int E, int R>
__global__ void __launch_bounds__(TEAM, 2)
    shapeflow_gaussian(const Item* items, const float* sigma, const double* terms, double epsilon, const float* x, const float* dx, const float* a,
                       const float* da, const float* y, const float* dy, const float* b, const float* db, float* v, float* g, float* partial, long long lda,
                       long long ldb, long long ldv, const float* boxes, double reach) {
  typedef typename Choice<OP, D, E, R>::Sums Sums;
  constexpr int A = Sums::BYTES, B = Rows<OP, D, E, R>::COUNT * int(sizeof(Features)), C = A > B ? A : B;
  alignas(16) __shared__ char memory[C > 2 * STAGE_BYTES ? C : 2 * STAGE_BYTES];
  __shared__ Radial<float, GAUSSIAN> shared_kernel;
  const Item item = items[blockIdx.x];
  const double width = double(sigma[item.problem]);
  if (threadIdx.x == 0) shared_kernel.set(width, terms, terms + 1, epsilon);
  const Call<float> call = {x, dx, a, da, y, dy, b, db, v, g, partial, lda, ldb, ldv, boxes};
  __shared__ float box[2 * D + 1];
  float centre[D], low[D], high[D];
  row_box<D, TEAM>(x, item, Rows<OP, D, E, R>::COUNT, low, high, reinterpret_cast<float*>(memory));
  box[2 * D] = float(reach * reach * width * width);
  SF_UNROLL for (int k = 0; k < D; ++k) {
    box[k] = low[k], box[D + k] = high[k];  // all threads write the same
    centre[k] = low[k] <= high[k] ? 0.5f * low[k] + 0.5f * high[k] : 0;
  }
  __syncthreads();
  Walk<D, float> walk = {boxes, item, box, -1, 0};
  const Radial<float, GAUSSIAN> kernel = shared_kernel;
  const bool invalid = !(width > 0) || nonfinite(width);
  const float rate = -2 * kernel.term[0].rate;  // s^2
  bool wide = !(rate > 1e-30f && rate < 1e30f);
  for (int place = threadIdx.x; place < Rows<OP, D, E, R>::COUNT && item.row + place < item.row_end; place += TEAM) {
    float norm = 0;
    SF_UNROLL for (int k = 0; k < D; ++k) {
      const float p = x[(item.row + place) * D + k] - centre[k];
      norm += nonfinite(p) ? 0 : p * p;
    }
    wide |= 0.5f * norm * rate > LIMIT;
  }
  wide = __syncthreads_or(wide);
  if (!invalid && !wide) {
    Rows<OP, D, E, R> rows = {call, item, centre, sqrtf(rate), kernel, {}};
    rows.load(memory);
    Sums sums = {rows};
    sums.run(walk, memory);
  } else {
    by_differences<OP, float, D, E, 0, R >= 2 ? R / 2 : 1, TEAM, Rows<OP, D, E, R>::COUNT>(call, item, kernel, walk, invalid, memory);
  }
}
