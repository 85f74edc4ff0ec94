// Work shared among threads without a compiler's OpenMP: the caller hands in the GOMP_parallel of the OpenMP runtime that torch has already
// loaded (so that both use one set of threads and never fight over the cores), or null, and then plain POSIX threads are started.
#pragma once
#include <pthread.h>
#include <stdint.h>

typedef void (*GompParallel)(void (*)(void*), void*, unsigned, unsigned);

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
  static void* run_posix(void* self) {
    run(self);
    return 0;
  }
};

// Calls work(i) for i in [0, count), in any order. What each item computes never depends on which thread takes it.
template <class Work> static void share(int64_t count, int threads, GompParallel gomp, const Work& work) {
  Shared<Work> shared = {&work, count, 0};
  if (threads > count) threads = int(count);
  if (threads <= 1) {
    Shared<Work>::run(&shared);
  } else if (gomp) {
    gomp(Shared<Work>::run, &shared, unsigned(threads), 0);
  } else {
    enum { MOST = 256 };
    pthread_t others[MOST];
    int started = 0;
    while (started < threads - 1 && started < MOST && pthread_create(&others[started], 0, Shared<Work>::run_posix, &shared) == 0) ++started;
    Shared<Work>::run(&shared);
    for (int t = 0; t < started; ++t) pthread_join(others[t], 0);
  }
}
