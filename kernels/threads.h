// Work items shared among the threads of pool.cpp, whose `shapeflow_parallel` every kernel is handed by its caller.
#pragma once
#include <stdint.h>

typedef void (*Parallel)(void (*)(void*), void*, unsigned);

template <class Work> struct Shared {
  const Work* work;
  int64_t count;
  int64_t next;

  static void run(void* self) {
    Shared* s = static_cast<Shared*>(self);
    for (;;) {
      const int64_t i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
      if (i >= s->count) return;
      (*s->work)(i);
    }
  }
};

// Calls work(i) for i in [0, count), in any order. What an item computes never depends on which thread takes it.
template <class Work> static void share(int64_t count, int threads, Parallel parallel, const Work& work) {
  Shared<Work> shared = {&work, count, 0};
  if (threads > count) threads = int(count);
  if (threads > 1 && parallel) parallel(Shared<Work>::run, &shared, unsigned(threads));
  else Shared<Work>::run(&shared);
}
