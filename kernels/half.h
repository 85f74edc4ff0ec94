// Half of a symmetric matrix: of a row only the columns from its own TILE on, half the exponentials and half the memory. ROWS rows lie together, a vector
// of each beside the other, so that a product reads one stream from end to end.
#pragma once
#include "native.h"

struct Half {
  enum { W = Lanes<T>::count, ROWS = 4, TILE = W < ROWS ? ROWS : W, NEXT_ROW = W, NEXT_VECTOR = ROWS * W };
  T* first;
  int64_t stride;  // rows, whole tiles

  static int64_t size(int64_t stride) { return stride * (stride + TILE) / 2; }
  // Where row i has the vector that begins with column j.
  T* at(int64_t i, int64_t j) const {
    const int64_t tile = i / TILE, own = tile * TILE, row = i % TILE;
    return first + own * stride - own * (own - TILE) / 2 + row / ROWS * ROWS * (stride - own) + (j - own) * ROWS + row % ROWS * W;
  }
  T& entry(int64_t i, int64_t j) const { return at(i, j / W * W)[j % W]; }
};
