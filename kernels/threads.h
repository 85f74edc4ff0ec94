// What all compiled specialisations of a process share, `shapeflow_pool` of pool.cpp, whose address every kernel is handed by its caller; and work items
// for its threads.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct Pool {
  void (*parallel)(void (*work)(void*), void* data, unsigned threads);
  void* (*borrow)(size_t bytes);  // null when there is none; at a multiple of 64
  void (*give_back)(void*);       // null is nothing
};

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
template <class Work> static void share(int64_t count, int threads, const Pool* pool, const Work& work) {
  Shared<Work> shared = {&work, count, 0};
  if (threads > count) threads = int(count);
  if (threads > 1) pool->parallel(Shared<Work>::run, &shared, unsigned(threads));
  else Shared<Work>::run(&shared);
}
