// What blocks of one launch need beyond cuda_math.h to wait for each other; and what stands for it where a CPU runs the kernels (where only those wait
// that read words which others write).
#pragma once

#ifndef SF_EMULATED

typedef unsigned long long Word;

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

// Words of global memory that other blocks write and read while this one runs: each is read as it was written, whole.
SF_FN void write_word(Word* to, Word a) { asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(a) : "memory"); }
SF_FN void write_words(Word* to, Word a, Word b) {
  asm volatile("st.relaxed.gpu.global.v2.u64 [%0], {%1, %2};" ::"l"(to), "l"(a), "l"(b) : "memory");
}
SF_FN void read_word(const Word* from, Word& a) { asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(a) : "l"(from)); }
SF_FN void read_words(const Word* from, Word& a, Word& b) {
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(a), "=l"(b) : "l"(from));
}
SF_FN void give_way() {}  // blocks that wait for each other run at the same time

SF_FN unsigned bits_of(float v) { return __float_as_uint(v); }
SF_FN Word bits_of(double v) { return Word(__double_as_longlong(v)); }
SF_FN float float_of(unsigned bits) { return __uint_as_float(bits); }
SF_FN double double_of(Word bits) { return __longlong_as_double((long long)(bits)); }

#else

#undef __launch_bounds__
#define __launch_bounds__(...)

template <class T> static void store_shared(T* to, T v) { *to = v; }
template <class T> static T load_shared(const T* from) { return *from; }
static void meet(unsigned*, unsigned) {}

typedef unsigned long long Word;
static void write_word(Word* to, Word a) { *to = a, idle = 0; }
static void write_words(Word* to, Word a, Word b) { to[0] = a, to[1] = b, idle = 0; }
static void read_word(const Word* from, Word& a) { a = *from; }
static void read_words(const Word* from, Word& a, Word& b) { a = from[0], b = from[1]; }
static unsigned bits_of(float v) { return __float_as_uint(v); }
static float float_of(unsigned bits) { return __uint_as_float(bits); }
static Word bits_of(double v) { Word bits; memcpy(&bits, &v, 8); return bits; }
static double double_of(Word bits) { double v; memcpy(&v, &bits, 8); return v; }

#endif
