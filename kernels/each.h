// The frame around whatever is done with the kernel matrix of each problem of a batch: its threads, its memory, and what happens to a problem that is
// not finite.
#pragma once
#include "dense.h"

static SF_APART bool bad(const T* numbers, int64_t count) { return any_nonfinite(numbers, count); }
static SF_APART void fill_nan(T* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = not_a_number();
}

// Whether a problem's width, points or `count` numbers of each of the others are not finite.
template <class... Given> static bool nonfinite(const T* sigma, const T* x, int64_t n, int64_t count, const Given*... others) {
  return !(*sigma > 0) || bad(sigma, 1) || bad(x, n * SF_D) || (bad(others, count) || ...);
}
template <class... Out> static void lose(int64_t count, Out*... out) { (fill_nan(out, count), ...); }

// Numbers borrowed for as long as this lives; `first` is null when there was no memory.
struct Borrowed {
  const Pool* pool;
  T* first;

  Borrowed(const Pool* from, int64_t count) : pool(from), first(static_cast<T*>(from->borrow(count * sizeof(T)))) {}
  ~Borrowed() { pool->give_back(first); }
};

// What is done with every problem, by address: the frame around it is compiled once.
struct Task {
  const void* self;
  bool (*lost)(const void*, int64_t, int64_t, int64_t);
  bool (*work)(const void*, int64_t, const Dense&, int64_t);
};
static SF_APART int each_task(const Plan* plan, const T* sigma, const T* x, int threads, const Pool* pool, const Task& task) {
  int failed = 0;
  const auto one = [&](int64_t p, Team* team) {
    const int64_t first = plan->rows[p], n = plan->rows[p + 1] - first;
    if (n == 0 || task.lost(task.self, p, first, n)) return;
    const FlushDenormals flush;
    Dense m;
    const bool room = m.allocate(kernel_of(plan, sigma, p), x + first * SF_D, n, team, pool);
    if (!room || !task.work(task.self, p, m, first)) __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
    pool->give_back(m.block);
  };
  if (threads <= plan->problems) {
    share(plan->problems, threads, pool, [&](int64_t p) { one(p, 0); });
    return failed;
  }
  const auto lead = [&](Team* team) {
    for (int64_t p = 0; p < plan->problems; ++p) one(p, plan->rows[p + 1] - plan->rows[p] < ALONE ? 0 : team);
  };
  struct Entry {
    Team team;
    const decltype(lead)* all;
    static void run(void* self) {
      Entry* e = static_cast<Entry*>(self);
      if (__atomic_fetch_add(&e->team.entered, 1, __ATOMIC_ACQ_REL)) {
        const FlushDenormals flush;
        e->team.help();
        return;
      }
      (*e->all)(&e->team);
      __atomic_store_n(&e->team.finished, 1, __ATOMIC_RELEASE);
    }
  } entry = {{0, 0, PARTS, 0, 0, 0, 0}, &lead};
  pool->parallel(Entry::run, &entry, unsigned(threads < PARTS ? threads : PARTS));
  return failed;
}

// For every problem that is not `lost(problem, first row, points)`: `work(problem, matrix, first row)`, which fills the matrix; 1 when memory ran out,
// as a work says by its result.
// Threads are one to a problem, or all in one problem after the other when there are more threads than problems.
template <class Lost, class Work>
static int each(const Plan* plan, const T* sigma, const T* x, int threads, const Pool* pool, const Lost& lost, const Work& work) {
  struct Both {
    const Lost& lost;
    const Work& work;
    static bool is_lost(const void* self, int64_t p, int64_t first, int64_t n) { return static_cast<const Both*>(self)->lost(p, first, n); }
    static bool run(const void* self, int64_t p, const Dense& m, int64_t first) { return static_cast<const Both*>(self)->work(p, m, first); }
  } both = {lost, work};
  return each_task(plan, sigma, x, threads, pool, {&both, Both::is_lost, Both::run});
}

