// The nearest particle of points that lie too far out for any kernel value to be told from zero. A thread has one point; all others leave at once, so
// that a call costs a launch wherever nothing is lost.
#ifndef SF_EMULATED
#include "cuda_math.h"
#endif

enum { NEAREST_THREADS = 128 };

// owner: the problem of each of n points of d coordinates; offsets: where its particles begin and end in q. `found` is written where `lost`, and zero
// elsewhere.
template <class T>
__global__ void __launch_bounds__(NEAREST_THREADS)
    shapeflow_nearest(long long n, long long d, const T* x, const unsigned char* lost, const long long* owner, const long long* offsets, const T* q,
                      long long* found) {
  const long long i = (long long)(blockIdx.x) * NEAREST_THREADS + threadIdx.x;
  if (i >= n) return;
  long long best = 0;
  if (lost[i]) {
    const long long end = offsets[owner[i] + 1];
    T least = T(-1);
    for (long long j = offsets[owner[i]]; j < end; ++j) {
      T r2 = 0;
      for (long long k = 0; k < d; ++k) r2 += (x[i * d + k] - q[j * d + k]) * (x[i * d + k] - q[j * d + k]);
      if (least < 0 || r2 < least) least = r2, best = j;
    }
  }
  found[i] = best;
}
