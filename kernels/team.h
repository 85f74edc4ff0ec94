// What blocks of one launch, and warps of doubles, need beyond cuda_math.h; and what stands for it where a CPU runs the kernels (blocks one after the
// other, so that only teams of one block can be run there).
#pragma once

#ifndef SF_EMULATED

SF_FN double shuffle_xor(double v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }

// Through the second-level cache: the first is not coherent between multiprocessors.
template <class T> SF_FN void store_shared(T* to, T v) { __stcg(to, v); }
template <class T> SF_FN T load_shared(const T* from) { return __ldcg(from); }

SF_FN double* dynamic_memory() {  // of the block, as much as it was launched with
  extern __shared__ double2 memory[];  // for loads of 16 bytes
  return reinterpret_cast<double*>(memory);
}

// One thread of a block arrives at a counter and waits until it has reached `goal`.
SF_FN void meet(unsigned* counter, unsigned goal) {
  __threadfence();
  atomicAdd(counter, 1u);
  unsigned seen;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
  } while (seen < goal);
  __threadfence();
}

#else

#undef __launch_bounds__
#define __launch_bounds__(...)

static double shuffle_xor(double v, int mask) {
  unsigned* mine = exchanged[threadIdx.x / 32][threadIdx.x % 32];
  const unsigned* theirs = exchanged[threadIdx.x / 32][(threadIdx.x % 32) ^ mask];
  double other;
  memcpy(mine, &v, sizeof v);
  warp_barrier();
  memcpy(&other, theirs, sizeof v);
  warp_barrier();
  return other;
}
template <class T> static void store_shared(T* to, T v) { *to = v; }
template <class T> static T load_shared(const T* from) { return *from; }
static void meet(unsigned*, unsigned) {}

#endif
