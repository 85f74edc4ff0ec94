// The widest vector of this processor as a GCC/Clang vector type, with the three functions radial.h asks for.
//
// exp2 splits t = n + f by adding a magic number: |f| is small, 2^f is a short polynomial, 2^n is an exponent (and, with AVX-512, a table
// that one permutation reads, so that n counts in 32nds and the polynomial needs two multiplications instead of five).
// Measured against float64: float 1.2e-7, double 3e-16 relative.
//
// The few instructions that vector types cannot spell are inline assembly: the intrinsics' headers alone would double the compile time.
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define SF_AVX512 1
enum { SF_BYTES = 64, SF_REGISTERS = 32 };
#elif defined(__AVX2__) && defined(__FMA__)
enum { SF_BYTES = 32, SF_REGISTERS = 16 };
#elif defined(__aarch64__)
enum { SF_BYTES = 16, SF_REGISTERS = 32 };
#else
enum { SF_BYTES = 16, SF_REGISTERS = 16 };
#endif

typedef float VF __attribute__((vector_size(SF_BYTES), may_alias));
typedef double VD __attribute__((vector_size(SF_BYTES), may_alias));
typedef int32_t VI32 __attribute__((vector_size(SF_BYTES), may_alias));
typedef int64_t VI64 __attribute__((vector_size(SF_BYTES), may_alias));

template <class T> struct Lanes;
template <> struct Lanes<float> {
  typedef VF type;
  enum { count = SF_BYTES / 4 };
};
template <> struct Lanes<double> {
  typedef VD type;
  enum { count = SF_BYTES / 8 };
};

#define SF_UNARY(name, V, instruction) \
  static inline V name(V a) { V r; __asm__(instruction " %1, %0" : "=v"(r) : "v"(a)); return r; }

#if SF_AVX512

// p 2^floor(n): underflow to zero needs no clamp.
#define SF_SCALEF(V, suffix) \
  static inline V scalef(V p, V n) { V r; __asm__("vscalef" suffix " %2, %1, %0" : "=v"(r) : "v"(p), "v"(n)); return r; }
// table[index mod (2 lanes)] from a table of two vectors; the index is in the low bits of `index`.
#define SF_LOOKUP(V, suffix) \
  static inline V lookup(V index, V low, V high) { __asm__("vpermi2" suffix " %2, %1, %0" : "+v"(index) : "v"(low), "v"(high)); return index; }
SF_SCALEF(VF, "ps")
SF_SCALEF(VD, "pd")
SF_LOOKUP(VF, "ps")
SF_LOOKUP(VD, "pd")
SF_UNARY(rsqrt14, VF, "vrsqrt14ps")
SF_UNARY(rsqrt14, VD, "vrsqrt14pd")
SF_UNARY(rcp14, VF, "vrcp14ps")
SF_UNARY(rcp14, VD, "vrcp14pd")

alignas(64) static const float kTable[32] = {
    1.0f,         1.02189715f,  1.04427378f,  1.06714040f,  1.09050773f,  1.11438674f,  1.13878863f,  1.16372485f,
    1.18920712f,  1.21524736f,  1.24185781f,  1.26905096f,  1.29683955f,  1.32523664f,  1.35425555f,  1.38390988f,
    1.41421356f,  1.44518081f,  1.47682615f,  1.50916443f,  1.54221083f,  1.57598085f,  1.61049033f,  1.64575548f,
    1.68179283f,  1.71861930f,  1.75625216f,  1.79470907f,  1.83400809f,  1.87416763f,  1.91520656f,  1.95714412f};
alignas(64) static const double kTableD[16] = {
    1.0, 1.0442737824274138403, 1.0905077326652576592, 1.1387886347566916537, 1.1892071150027210667, 1.2418578120734840486,
    1.2968395546510096659, 1.3542555469368927283, 1.4142135623730950488, 1.4768261459394993114, 1.5422108254079408236,
    1.6104903319492543081, 1.6817928305074290861, 1.7562521603732994831, 1.8340080864093424635, 1.9152065613971472939};

static inline VF exp2_(VF t) {
  const float magic = 393216.0f;  // 1.5 x 2^18: the sum's last bit is worth 1/32
  const VF m = t + magic;
  const VF n = m - magic, f = t - n;
  const VF p = (f * 0.240224745873540936f + 0.693157343621076815f) * f + 1.00000000042995617f;
  return scalef(lookup(m, *(const VF*)kTable, *(const VF*)(kTable + 16)) * p, n);
}
static inline VD exp2_(VD t) {
  const double magic = 422212465065984.0;  // 1.5 x 2^48: 1/16
  const VD m = t + magic;
  const VD n = m - magic, f = t - n;
  VD p = f * 0.000154033055513736977 + 0.00133338188060957552;
  p = p * f + 0.00961812911313047279;
  p = p * f + 0.0555041086520947564;
  p = p * f + 0.240226506959098426;
  p = p * f + 0.693147180559946863;
  p = p * f + 1.0;
  return scalef(lookup(m, *(const VD*)kTableD, *(const VD*)(kTableD + 8)) * p, n);
}

#else

static inline VF exp2_(VF t) {
  const float magic = 12582912.0f;
  const VF low = t * 0.0f - 126.0f;  // below this the result would not be a normal number
  t = t > low ? t : low;
  const VF m = t + magic;
  const VF f = t - (m - magic);
  VF p = f * 0.00132764870509718389f + 0.00967554039915033002f;
  p = p * f + 0.0555071322640424883f;
  p = p * f + 0.240221197551124916f;
  p = p * f + 0.693146967095549076f;
  p = p * f + 1.00000007164571428f;
  return (VF)((VI32)p + ((VI32)m << 23));
}
static inline VD exp2_(VD t) {
  const double magic = 6755399441055744.0;
  const VD low = t * 0.0 - 1022.0;
  t = t > low ? t : low;
  const VD m = t + magic;
  const VD f = t - (m - magic);
  VD p = f * 4.43535235186488352e-10 + 7.07410434182751635e-9;
  p = p * f + 1.01781975588464289e-7;
  p = p * f + 1.32154330973075747e-6;
  p = p * f + 1.52527334910960904e-5;
  p = p * f + 0.000154035304624988203;
  p = p * f + 0.00133335581467887735;
  p = p * f + 0.00961812910758834779;
  p = p * f + 0.0555041086648199264;
  p = p * f + 0.240226506959101562;
  p = p * f + 0.69314718055994533;
  p = p * f + 1.0;
  return (VD)((VI64)p + ((VI64)m << 52));
}

#endif

// The sum of a vector's lanes, by halves.
template <class T> static inline T across(typename Lanes<T>::type v) {
  enum { W = Lanes<T>::count };
  alignas(SF_BYTES) T lane[W];
  memcpy(lane, &v, sizeof v);
  SF_UNROLL for (int half = W / 2; half > 0; half /= 2)
    SF_UNROLL for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

// One Newton step doubles the digits of the processor's estimate.
template <class V, class T> static inline V refine_rsqrt(V a, V e, T) { return e * (T(1.5) - (a * T(0.5)) * e * e); }

#if SF_AVX512
static inline VF rsqrt_(VF a) { return refine_rsqrt(a, rsqrt14(a), 0.f); }
static inline VD rsqrt_(VD a) { return refine_rsqrt(a, refine_rsqrt(a, rsqrt14(a), 0.), 0.); }
static inline VF rcp_(VF a) {
  const VF e = rcp14(a);
  return e * (2.0f - a * e);
}
static inline VD rcp_(VD a) {
  VD e = rcp14(a);
  e = e * (2.0 - a * e);
  return e * (2.0 - a * e);
}
#elif defined(__AVX2__) && defined(__FMA__)
SF_UNARY(rsqrt12, VF, "vrsqrtps")
SF_UNARY(rcp12, VF, "vrcpps")
SF_UNARY(sqrt_, VD, "vsqrtpd")
static inline VF rsqrt_(VF a) { return refine_rsqrt(a, rsqrt12(a), 0.f); }
static inline VD rsqrt_(VD a) { return 1.0 / sqrt_(a); }
static inline VF rcp_(VF a) {
  const VF e = rcp12(a);
  return e * (2.0f - a * e);
}
static inline VD rcp_(VD a) { return 1.0 / a; }
#elif defined(__aarch64__)
#define SF_ARM(name, V, instruction, lanes) \
  static inline V name(V a) { V r; __asm__(instruction " %0." lanes ", %1." lanes : "=w"(r) : "w"(a)); return r; }
SF_ARM(rsqrt8, VF, "frsqrte", "4s")
SF_ARM(sqrt_, VD, "fsqrt", "2d")
static inline VF rsqrt_(VF a) { return refine_rsqrt(a, refine_rsqrt(a, rsqrt8(a), 0.f), 0.f); }
static inline VD rsqrt_(VD a) { return 1.0 / sqrt_(a); }
static inline VF rcp_(VF a) { return 1.0f / a; }
static inline VD rcp_(VD a) { return 1.0 / a; }
#else
template <class V> static inline V rsqrt_lanes(V a) {
  for (unsigned l = 0; l < sizeof(V) / sizeof(a[0]); ++l) a[l] = 1 / __builtin_sqrt(a[l]);
  return a;
}
static inline VF rsqrt_(VF a) { return rsqrt_lanes(a); }
static inline VD rsqrt_(VD a) { return rsqrt_lanes(a); }
static inline VF rcp_(VF a) { return 1.0f / a; }
static inline VD rcp_(VD a) { return 1.0 / a; }
#endif

// Numbers below 1e-38 cost up to 100 cycles each on some processors and mean nothing here: flush them, and leave the caller's setting as it was.
struct FlushDenormals {
#if defined(__SSE2__)
  unsigned saved;
  FlushDenormals() {
    __asm__ volatile("stmxcsr %0" : "=m"(saved));
    const unsigned flush = saved | 0x8040;
    __asm__ volatile("ldmxcsr %0" ::"m"(flush));
  }
  ~FlushDenormals() { __asm__ volatile("ldmxcsr %0" ::"m"(saved)); }
#elif defined(__aarch64__)
  uint64_t saved;
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" ::"r"(saved | (1u << 24)));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(saved)); }
#endif
};

// True if any of `count` numbers is NaN or infinite. Looks at the bits, so that no compiler flag can optimise it away.
static inline bool any_nonfinite(const float* p, int64_t count) {
  uint32_t bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t u;
    memcpy(&u, p + i, 4);
    bad |= (u & 0x7f800000u) == 0x7f800000u;
  }
  return bad;
}
static inline bool any_nonfinite(const double* p, int64_t count) {
  uint64_t bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint64_t u;
    memcpy(&u, p + i, 8);
    bad |= (u & 0x7ff0000000000000ull) == 0x7ff0000000000000ull;
  }
  return bad;
}
