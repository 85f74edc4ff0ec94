// The threads and the working memory of the CPU kernels: one pool for the process, shared by all compiled specialisations.
//
// Why not OpenMP: its parallel region ends when every thread of the team has arrived, also those that found nothing to do. On a machine that is busy
// with something else (another process, a container's quota) a thread waits milliseconds for a core, and a product of 0.2 ms then takes 15. Here
// the caller works too and closes the door when all work is claimed: it waits for threads that hold an item, never for one that has not woken.
// It also needs no OpenMP, which Apple's compiler lacks.
//
// Why not malloc: it may give large blocks back to the system with every call, and to map their pages again costs more than to fill them.
#include "threads.h"
#include <pthread.h>
#include <stdlib.h>

namespace {

typedef void (*Work)(void*);

struct Threads {
  pthread_mutex_t owner, lock;
  pthread_cond_t wake, done;
  Work work;
  void* data;
  int seats;   // threads that may still join; 0: the door is closed
  int active;  // threads inside
  int started;
};

Threads pool = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0, 0, 0};

enum { SPINS = 2000, MOST = 1024 };  // some 30 µs of looking before a thread sleeps: calls come in close succession

inline void pause_() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void* worker(void*) {
  pthread_mutex_lock(&pool.lock);
  for (;;) {
    while (pool.seats == 0) {
      pthread_mutex_unlock(&pool.lock);
      for (int i = 0; i < SPINS && __atomic_load_n(&pool.seats, __ATOMIC_RELAXED) == 0; ++i) pause_();
      pthread_mutex_lock(&pool.lock);
      if (pool.seats == 0) pthread_cond_wait(&pool.wake, &pool.lock);
    }
    __atomic_store_n(&pool.seats, pool.seats - 1, __ATOMIC_RELAXED);
    ++pool.active;
    const Work work = pool.work;
    void* data = pool.data;
    pthread_mutex_unlock(&pool.lock);
    work(data);
    pthread_mutex_lock(&pool.lock);
    const int left = pool.active - 1;
    __atomic_store_n(&pool.active, left, __ATOMIC_RELAXED);
    if (left == 0) pthread_cond_signal(&pool.done);
  }
  return 0;
}

void forget_threads() {  // a forked child has the memory of the pool but none of its threads
  const Threads fresh = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0, 0, 0};
  pool = fresh;
}

// Runs work(data) on the caller and on up to threads - 1 others; returns when all that entered have left. The work must be of the kind that any one
// of them could finish alone. A second caller at the same time (another Python thread) does its work by itself.
void parallel(Work work, void* data, unsigned threads) {
  const int wanted = int(threads < MOST ? threads : unsigned(MOST)) - 1;
  if (wanted < 1 || pthread_mutex_trylock(&pool.owner) != 0) {
    work(data);
    return;
  }
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&detached, 4u << 20);  // a tile of many features keeps its sums on the stack; macOS would give 512 KiB
  pthread_t thread;
  while (pool.started < wanted && pthread_create(&thread, &detached, worker, 0) == 0) ++pool.started;
  pthread_attr_destroy(&detached);

  pthread_mutex_lock(&pool.lock);
  pool.work = work;
  pool.data = data;
  __atomic_store_n(&pool.seats, wanted, __ATOMIC_RELAXED);
  pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.lock);

  work(data);

  pthread_mutex_lock(&pool.lock);
  __atomic_store_n(&pool.seats, 0, __ATOMIC_RELAXED);
  if (pool.active) {  // the others finish their last items: nearly always sooner than this thread could be woken
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < SPINS && __atomic_load_n(&pool.active, __ATOMIC_RELAXED); ++i) pause_();
    pthread_mutex_lock(&pool.lock);
  }
  while (pool.active) pthread_cond_wait(&pool.done, &pool.lock);
  pthread_mutex_unlock(&pool.lock);
  pthread_mutex_unlock(&pool.owner);
}

// Blocks that nobody uses, the one given back last at the end: up to KEPT of them and KEPT_BYTES in all; the oldest go first.
enum { KEPT = 32, HEAD = 64 };  // HEAD bytes before a block hold its size
const size_t KEPT_BYTES = size_t(64) << 20;

struct Memory {
  pthread_mutex_t lock;
  int count;
  size_t bytes;
  char* kept[KEPT];
};
Memory memory = {PTHREAD_MUTEX_INITIALIZER, 0, 0, {}};

size_t& size_of(char* start) { return *reinterpret_cast<size_t*>(start); }

char* take(int which) {
  char* start = memory.kept[which];
  --memory.count;
  memory.bytes -= size_of(start);
  for (int i = which; i < memory.count; ++i) memory.kept[i] = memory.kept[i + 1];
  return start;
}

void* borrow(size_t bytes) {
  bytes = (bytes + HEAD + 63) / 64 * 64;
  char* start = 0;
  pthread_mutex_lock(&memory.lock);
  for (int i = memory.count - 1; i >= 0 && !start; --i) {
    const size_t size = size_of(memory.kept[i]);
    if (bytes <= size && size <= 2 * bytes) start = take(i);
  }
  pthread_mutex_unlock(&memory.lock);
  if (!start) {
    start = static_cast<char*>(aligned_alloc(64, bytes));
    if (!start) return 0;
    size_of(start) = bytes;
  }
  return start + HEAD;
}

void give_back(void* block) {
  if (!block) return;
  char* start = static_cast<char*>(block) - HEAD;
  const size_t bytes = size_of(start);
  if (bytes > KEPT_BYTES) {
    free(start);
    return;
  }
  pthread_mutex_lock(&memory.lock);
  while (memory.count == KEPT || memory.bytes + bytes > KEPT_BYTES) free(take(0));
  memory.kept[memory.count++] = start;
  memory.bytes += bytes;
  pthread_mutex_unlock(&memory.lock);
}

// A fork waits until nobody is between two steps of the list: the child has the blocks, too.
void before_fork() { pthread_mutex_lock(&memory.lock); }
void after_fork() { pthread_mutex_unlock(&memory.lock); }
void in_child() {
  pthread_mutex_unlock(&memory.lock);
  forget_threads();
}
__attribute__((constructor)) void watch_forks() { pthread_atfork(before_fork, after_fork, in_child); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const Pool shapeflow_pool = {parallel, borrow, give_back};
