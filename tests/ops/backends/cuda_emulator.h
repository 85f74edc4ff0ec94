// Runs kernels/cuda.cu on the CPU, to test its arithmetic and indexing where there is no GPU: a block is THREADS threads that meet at a barrier,
// blocks run one after the other (so that __shared__ can be a static), and the few device functions have host twins.
#pragma once
#include <math.h>
#include <pthread.h>
#include <atomic>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __shared__ static
#define SF_FN inline
#define SF_UNROLL

struct Index { unsigned x, y; };
static thread_local Index threadIdx;
static Index blockIdx;
static pthread_barrier_t barrier;
static std::atomic<int> votes[2];
static thread_local int phase;

static void __syncthreads() { pthread_barrier_wait(&barrier); }
static int __syncthreads_or(int vote) {
  std::atomic<int>& box = votes[phase];
  phase ^= 1;
  if (vote) box = 1;
  pthread_barrier_wait(&barrier);
  const int any = box;
  pthread_barrier_wait(&barrier);
  box = 0;  // everybody has read it; it is used again only after the other box's barriers
  return any;
}
static float exp2_(float t) { return exp2f(t); }
static double exp2_(double t) { return exp2(t); }
static float rsqrt_(float a) { return 1 / sqrtf(a); }
static double rsqrt_(double a) { return 1 / sqrt(a); }
static float rcp_(float a) { return 1 / a; }
static double rcp_(double a) { return 1 / a; }
static bool nonfinite(double v) { return !(v - v == 0); }
template <class T> static void set_nan(T& v) { v = T(NAN); }

template <class Kernel, class... Args> static void emulate(Index grid, int threads, Kernel kernel, Args... args) {
  pthread_barrier_init(&barrier, 0, threads);
  for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
      votes[0] = votes[1] = 0;
      std::vector<std::thread> team;
      for (int t = 0; t < threads; ++t)
        team.emplace_back([=] {
          threadIdx = {unsigned(t), 0};
          phase = 0;
          kernel(args...);
        });
      for (std::thread& one : team) one.join();
    }
  pthread_barrier_destroy(&barrier);
}
