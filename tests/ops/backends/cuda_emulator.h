// Runs the CUDA kernels on the CPU, to test their arithmetic and indexing where there is no GPU: blocks run one after the other (so that __shared__ can be
// a static), the few device functions have host twins, and the threads of a block are contexts of one thread of the system: each runs until it meets the
// others, so that a barrier costs a change of stacks. A warp goes on alone for as long as it can, the first one in one block and the last one in the next: where
// a barrier is missing, threads read what is stale or already overwritten, and they do so every time.
//
// The blocks of a cooperative launch are all there at once: one goes on until it has to wait for another (`give_way`). What they share with nobody has to
// be in dynamic shared memory, of which each has its own.
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

struct Barrier {
  int size, arrived;
  unsigned round;
  void wait();
};
struct Thread {
  ucontext_t context;
  bool ended;
  int phase;  // which box its next vote goes into
};
struct Block {  // one that is running
  Index index;
  int order, running, here;  // which of its threads comes next; `running` have not ended; whose turn it is when the block's comes
  Barrier barrier, warps[32];
  int votes[2];
  unsigned exchanged[32][32][6];
  double* memory;
  Thread* team;
};
static Block blocks[32];
static Block* block;
static ucontext_t launch;
static void (*body)(const void*);
static const void* call;
static int team_size, present, idle;  // blocks that are there; `idle` times threads gave way since one of them got on
constexpr size_t STACK = 1 << 18;

static Thread& self() { return block->team[threadIdx.x]; }
static Thread& next(int among) {  // the one after this, of its warp or of its block, that has not ended
  const int first = int(threadIdx.x) / among * among;
  do threadIdx.x = first + (int(threadIdx.x) - first + block->order + among) % among;
  while (self().ended);
  return self();
}
static Thread* elsewhere() {  // whose turn it is in the next block that has not ended, or null
  for (int k = 0; k < present; ++k) {
    block = blocks + (block - blocks + 1) % present;
    if (!block->running) continue;
    threadIdx.x = block->here, blockIdx = block->index;
    return self().ended ? &next(team_size) : &self();
  }
  return 0;
}
static void waited(const char* what) {
  if (++idle > 2 * team_size * team_size * present) fprintf(stderr, "cuda_emulator: %s\n", what), abort();
}
static void thread_main() {
  body(call);
  self().ended = true, idle = 0;
  Thread* const after = --block->running ? &next(team_size) : elsewhere();
  setcontext(after ? &after->context : &launch);
}
void Barrier::wait() {
  const unsigned mine = round;
  idle = 0;
  if (++arrived == size) {
    arrived = 0, ++round;
    return;
  }
  while (round == mine) {
    waited("a barrier that not all of its threads reach");
    Thread& here = self();
    swapcontext(&here.context, &next(size).context);
  }
}
static void give_way() {  // to other blocks; each time that this one's turn comes, another of its threads is the first
  waited("threads wait for what no block writes");
  Thread& here = self();
  block->here = (block->here + 1) % team_size;
  swapcontext(&here.context, &elsewhere()->context);
}
static double* dynamic_memory() { return block->memory; }

static void __syncthreads() { block->barrier.wait(); }
static int __syncthreads_or(int vote) {
  int& box = block->votes[self().phase];
  self().phase ^= 1;
  if (vote) box = 1;
  block->barrier.wait();
  const int any = box;
  block->barrier.wait();
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
static void warp_barrier() { block->warps[threadIdx.x / 32].wait(); }
template <class T> static T shuffle_xor(T v, int mask) {
  unsigned(*team)[6] = block->exchanged[threadIdx.x / 32];
  memcpy(team[threadIdx.x % 32], &v, sizeof v);
  warp_barrier();
  memcpy(&v, team[(threadIdx.x % 32) ^ mask], sizeof v);
  warp_barrier();
  return v;
}
static unsigned warp_ballot(bool vote) {
  unsigned(*team)[6] = block->exchanged[threadIdx.x / 32];
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
  unsigned(*team)[6] = block->exchanged[threadIdx.x / 32];
  team[threadIdx.x % 32][0] = v;
  warp_barrier();
  for (int lane = 0; lane < 32; ++lane) v = team[lane][0] > v ? team[lane][0] : v;
  warp_barrier();
  return v;
}
static void mma16816(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bool fresh) {
  unsigned(*team)[6] = block->exchanged[threadIdx.x / 32];
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

// `resident` blocks are there at once, each with `shared` bytes of dynamic memory.
template <class Kernel, class... Args> static void emulate(Index grid, int threads, size_t shared, int resident, Kernel kernel, Args... args) {
  const auto run = [=] { kernel(args...); };
  body = [](const void* run_) { (*static_cast<decltype(run)*>(run_))(); };
  call = &run;
  team_size = threads, idle = 0;
  char* const stacks = static_cast<char*>(malloc(resident * threads * STACK));
  Thread* const teams = new Thread[resident * threads];
  const int count = grid.x * grid.y;
  for (int begin = 0; begin < count; begin += resident) {
    present = count - begin < resident ? count - begin : resident;
    for (int b = 0; b < present; ++b) {
      Block& one = blocks[b];
      one.index = {(begin + b) % grid.x, (begin + b) / grid.x};
      one.order = (one.index.x + one.index.y) % 2 ? -1 : 1;
      one.running = threads;
      one.here = one.order > 0 ? 0 : threads - 1;
      one.barrier = {threads, 0, 0};
      for (Barrier& warp : one.warps) warp = {32, 0, 0};
      one.votes[0] = one.votes[1] = 0;
      one.memory = static_cast<double*>(malloc(shared + 1));
      memset(one.memory, 0xff, shared);  // NaN
      one.team = teams + b * threads;
      for (int t = 0; t < threads; ++t) {
        Thread& thread = one.team[t];
        thread.ended = false, thread.phase = 0;
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = stacks + (b * threads + t) * STACK;
        thread.context.uc_stack.ss_size = STACK;
        makecontext(&thread.context, thread_main, 0);
      }
    }
    block = blocks, blockIdx = block->index, threadIdx = {unsigned(block->here), 0};
    swapcontext(&launch, &self().context);
    for (int b = 0; b < present; ++b) free(blocks[b].memory);
  }
  delete[] teams;
  free(stacks);
}
