// What does not change from call to call of a CPU kernel: mirrored by `Plan` of native_call.py.
#pragma once
#include <stdint.h>

struct Plan {
  int64_t problems;
  const int64_t *rows, *columns;  // (problems + 1) offsets each
  const double *weights, *ratios;
  double epsilon;
};
