// The operators of mutual.h for a batch of problems.
//
// Macros: SF_OP (Op of pair.h), SF_REAL, SF_D, SF_E (dimensions), SF_MASK (tangents given: none, the points', or all), SF_TERMS (Name, Name, ...).
#define SF_UNROLL _Pragma("GCC unroll 32")
#include "mutual.h"

typedef Mutual<SF_OP, SF_E, SF_MASK> Sum;
enum { D = SF_D, E = SF_E, MOST_PARTS = 32 };

struct Call {
  const Plan* plan;
  const T *sigma, *x, *dx, *a, *da, *b, *db;
  T *v, *g;
  const Pool* pool;
};

// One problem of a batch.
struct Problem {
  const Call* call;
  int64_t first, n;
  int parts;  // none where there is nothing to sum
  Sum sum;

  // Returns whether there was memory.
  bool begin(const Call& c, int64_t problem) {
    call = &c;
    first = c.plan->rows[problem];
    n = c.plan->rows[problem + 1] - first;
    parts = 0;
    sum.planes = 0;
    if (lost(c.sigma[problem])) return true;
    // Enough for many threads, few enough to add. Fixed by n: they must not depend on the thread count.
    const int few = n < 128 ? 1 : n < 512 ? 4 : 8, count = n <= 2048 ? few : n <= 8192 ? 16 : MOST_PARTS;
    const auto rows = [&](const T* from, int numbers) { return from ? from + first * numbers : 0; };
    const Sum::Given given = {rows(c.x, D), rows(c.dx, D), rows(c.a, E), rows(c.da, E), rows(c.b, E), rows(c.db, E)};
    if (!sum.begin(given, kernel_of(c.plan, c.sigma, problem), n, count, c.pool)) return false;
    parts = count;
    return true;
  }
  // A number that is not finite anywhere makes the whole problem NaN: an infinite coordinate would otherwise give k = 0, a plausible number.
  bool lost(T sigma) const {
    const auto spoiled = [&](const T* from, int count) { return any_nonfinite(from + first * count, n * count); };
    bool bad = !(sigma > 0) || any_nonfinite(&sigma, 1) || spoiled(call->x, D) || spoiled(call->b, E);
    if constexpr (SF_OP != PRODUCT) bad |= spoiled(call->a, E);
    if constexpr (Sum::MOVES) bad |= spoiled(call->dx, D);
    if constexpr (Sum::RATES) bad |= spoiled(call->da, E) || spoiled(call->db, E);
    for (int64_t i = first * Sum::NV; bad && i < (first + n) * Sum::NV; ++i) call->v[i] = not_a_number();
    for (int64_t i = first * Sum::NG; bad && i < (first + n) * Sum::NG; ++i) call->g[i] = not_a_number();
    return bad || n == 0;
  }
  void end(int k) const {
    if (parts) sum.end(k, call->v + first * Sum::NV, call->g + first * Sum::NG);
  }
};

// v (N, E) and g (N, D). Returns 0, or 1 when memory ran out. The arguments are those of cpu.cpp, so that either can be called: columns are the rows
// again, features lie without gaps, and no pair is skipped.
SF_EXPORT int shapeflow_run(const Plan* plan, const T* sigma, const T* x, const T* dx, const T* a, const T* da, const T*, const T*, const T* b,
                            const T* db, T* v, T* g, int64_t, int64_t, int64_t, double, int threads, const Pool* pool) {
  const Call c = {plan, sigma, x, dx, a, da, b, db, v, g, pool};
  int failed = 0;
  // Several problems at once, by a team of threads: first what they need, then all of their parts, then the results.
  const auto together = [&](Problem* m, int64_t begin, int64_t count, int team) {
    share(count, team, pool, [&](int64_t p) {
      if (!m[p].begin(c, begin + p)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
    });
    share(count * MOST_PARTS, team, pool, [&](int64_t i) {
      if (i / count < m[i % count].parts) m[i % count].sum.part(int(i / count));
    });
    share(count * Sum::OUT, team, pool, [&](int64_t i) {
      m[i % count].end(int(i / count));
    });
    for (int64_t p = 0; p < count; ++p) pool->give_back(m[p].sum.planes);
  };
  const int64_t problems = plan->problems, most = 2 * threads;
  if (problems >= 2 * most) {  // enough for a thread each
    share(problems, threads, pool, [&](int64_t p) {
      Problem m;
      together(&m, p, 1, 1);
    });
    return failed;
  }
  // As many as give every thread two parts.
  Problem* m = static_cast<Problem*>(malloc(sizeof(Problem) * problems));
  if (!m) return 1;
  for (int64_t begin = 0, end; begin < problems; begin = end) {
    int64_t points = 0;
    for (end = begin; end < problems && points < 128 * most; ++end) points += plan->rows[end + 1] - plan->rows[end];
    together(m, begin, end - begin, threads);
  }
  free(m);
  return failed;
}
