// Runs the CUDA kernels on the CPU, to test their arithmetic and indexing where there is no GPU: blocks run one after the other (so that __shared__ can be
// a static), the few device functions have host twins, and the threads of a block are contexts of one thread of the system: each runs until it meets the
// others, so that a barrier costs a change of stacks. A warp goes on alone for as long as it can, the first one in one block and the last one in the next: where
// a barrier is missing, threads read what is stale or already overwritten, and they do so every time.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define SF_FN inline
#define SF_UNROLL

struct Index { unsigned x, y; };
static Index threadIdx, blockIdx;

struct Thread {
  ucontext_t context;
  bool ended;
  int phase;  // which box its next vote goes into
};
static Thread team[1024];
static ucontext_t launch;
static void (*body)(const void*);
static const void* call;
static int team_size, order, running, idle;  // `running` have not ended; `idle` times they gave way since one of them got on
constexpr size_t STACK = 1 << 18;

alignas(16) static char memory[99 << 10];
static double* dynamic_memory() { return reinterpret_cast<double*>(memory); }

static Thread& self() { return team[threadIdx.x]; }
static Thread& next(int among) {  // the one after this, of its warp or of its block, that has not ended
  const int first = int(threadIdx.x) / among * among;
  do threadIdx.x = first + (int(threadIdx.x) - first + order + among) % among;
  while (self().ended);
  return self();
}
static void thread_main() {
  body(call);
  self().ended = true, idle = 0;
  setcontext(--running ? &next(team_size).context : &launch);
}

struct Barrier {
  int size, arrived;
  unsigned round;
  void wait() {
    const unsigned mine = round;
    if (++arrived == size) {
      arrived = idle = 0, ++round;
      return;
    }
    while (round == mine) {
      if (++idle > 4 * running) fputs("cuda_emulator: a barrier that not all of its threads reach\n", stderr), abort();
      Thread& here = self();
      swapcontext(&here.context, &next(size).context);
    }
  }
};
static Barrier barrier;
static int votes[2];

static void __syncthreads() { barrier.wait(); }
static int __syncthreads_or(int vote) {
  int& box = votes[self().phase];
  self().phase ^= 1;
  if (vote) box = 1;
  barrier.wait();
  const int any = box;
  barrier.wait();
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

static unsigned __float_as_uint(float v) { unsigned u; memcpy(&u, &v, 4); return u; }
static float __uint_as_float(unsigned u) { float v; memcpy(&v, &u, 4); return v; }
struct float4 { float x, y, z, w; };
template <class T> static T* in_memory(T* p) { return p; }
static float exp2_poly_(float t) { return exp2f(t); }
static float exp2_poly_normal_(float t) { return t >= -126 && t <= 128 ? exp2f(t) : NAN; }

// Halves, by the compiler's own.
static unsigned half_bits(float v) {
  const _Float16 h = static_cast<_Float16>(v);
  unsigned short bits;
  memcpy(&bits, &h, 2);
  return bits;
}
static float half_value(unsigned bits) {
  const unsigned short low = static_cast<unsigned short>(bits);
  _Float16 h;
  memcpy(&h, &low, 2);
  return static_cast<float>(h);
}
static unsigned pack_halves(float low, float high) { return half_bits(low) | half_bits(high) << 16; }
static void unpack_halves(unsigned both, float& low, float& high) { low = half_value(both & 0xffff), high = half_value(both >> 16); }
static float round_to_half(float v) { return half_value(half_bits(v)); }
static float eleven_bits(float v) { return __uint_as_float(__float_as_uint(v) & 0xffffe000u); }

// What threads of a warp do together: everybody writes, meets the others, reads.
static Barrier warp_barriers[32];
static unsigned exchanged[32][32][6];
static void warp_barrier() { warp_barriers[threadIdx.x / 32].wait(); }
template <class T> static T shuffle_xor(T v, int mask) {
  unsigned(*team)[6] = exchanged[threadIdx.x / 32];
  memcpy(team[threadIdx.x % 32], &v, sizeof v);
  warp_barrier();
  memcpy(&v, team[(threadIdx.x % 32) ^ mask], sizeof v);
  warp_barrier();
  return v;
}
static unsigned warp_ballot(bool vote) {
  unsigned(*team)[6] = exchanged[threadIdx.x / 32];
  team[threadIdx.x % 32][0] = vote;
  warp_barrier();
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= team[lane][0] << lane;
  warp_barrier();
  return bits;
}
static int lowest_bit(unsigned bits) { return __builtin_ctz(bits); }
static float smaller(float a, float b) { return fminf(a, b); }
static double smaller(double a, double b) { return fmin(a, b); }
static unsigned warp_max(unsigned v) {
  unsigned(*team)[6] = exchanged[threadIdx.x / 32];
  team[threadIdx.x % 32][0] = v;
  warp_barrier();
  for (int lane = 0; lane < 32; ++lane) v = team[lane][0] > v ? team[lane][0] : v;
  warp_barrier();
  return v;
}
static void mma16816(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bool fresh) {
  unsigned(*team)[6] = exchanged[threadIdx.x / 32];
  const int lane = threadIdx.x % 32, quad = lane / 4, side = lane % 4;
  for (int k = 0; k < 4; ++k) team[lane][k] = a[k];
  team[lane][4] = b0, team[lane][5] = b1;
  warp_barrier();
  for (int i = 0; i < 4; ++i) {
    double sum = fresh ? 0 : double(c[i]);
    for (int k = 0; k < 16; ++k) {  // which lane holds the operands' k-th column and row, and in which register and half
      const int owner = k % 8 / 2, high = k / 8, shift = k % 2 * 16;
      sum += double(half_value(team[quad * 4 + owner][2 * high + i / 2] >> shift & 0xffff)) *
             half_value(team[(2 * side + i % 2) * 4 + owner][4 + high] >> shift & 0xffff);
    }
    c[i] = float(sum);
  }
  warp_barrier();
}

template <class Kernel, class... Args> static void emulate(Index grid, int threads, Kernel kernel, Args... args) {
  const auto run = [=] { kernel(args...); };
  body = [](const void* run_) { (*static_cast<decltype(run)*>(run_))(); };
  call = &run;
  team_size = threads;
  char* const stacks = static_cast<char*>(malloc(threads * STACK));
  for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
      barrier = {threads, 0, 0};
      for (Barrier& one : warp_barriers) one = {32, 0, 0};
      votes[0] = votes[1] = 0;
      order = (blockIdx.x + blockIdx.y) % 2 ? -1 : 1;
      running = threads, idle = 0;
      for (int t = 0; t < threads; ++t) {
        team[t].ended = false, team[t].phase = 0;
        getcontext(&team[t].context);
        team[t].context.uc_stack.ss_sp = stacks + t * STACK;
        team[t].context.uc_stack.ss_size = STACK;
        makecontext(&team[t].context, thread_main, 0);
      }
      threadIdx = {order > 0 ? 0u : unsigned(threads - 1), 0};
      swapcontext(&launch, &self().context);
    }
  free(stacks);
}
