// What does not change from call to call of a CPU kernel: mirrored by `Plan` of native_call.py.
#pragma once
#include <stdint.h>

#define SF_EXPORT extern "C" __attribute__((visibility("default")))  // what Python calls

struct Plan {
  int64_t problems;
  const int64_t *rows, *columns;  // (problems + 1) offsets each
  const double *weights, *ratios;
  double epsilon;
};
