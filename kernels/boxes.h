// Bounding boxes of column blocks, to skip blocks that are too far from a tile of rows to matter. Worth it when the points are sorted in space.
//
// Two levels: boxes of blocks and of GROUP blocks. A block that holds a NaN or an infinity, anywhere in its columns, gets a box of NaN: no comparison
// finds it far, so it is always swept and its rows come out NaN, as without boxes.
#pragma once
#include <stdint.h>
#include <stdlib.h>

template <class T, int D> struct Box {
  T low[D], high[D];

  void around(const T* points, int64_t count) {
    for (int k = 0; k < D; ++k) low[k] = high[k] = points[k];
    for (int64_t i = 1; i < count; ++i)
      for (int k = 0; k < D; ++k) {
        const T p = points[i * D + k];
        // Written so that a NaN is kept: a row that is not finite must meet every block.
        low[k] = !(p >= low[k]) ? p : low[k];
        high[k] = !(p <= high[k]) ? p : high[k];
      }
  }
  void join(const Box& other) {
    for (int k = 0; k < D; ++k) {
      low[k] = other.low[k] < low[k] ? other.low[k] : low[k];
      high[k] = other.high[k] > high[k] ? other.high[k] : high[k];
    }
  }
  void nan() {
    for (int k = 0; k < D; ++k) low[k] = high[k] = T(__builtin_nan(""));
  }
  bool is_nan() const { return low[0] != low[0]; }
  bool far(const Box& other, T reach2) const {
    T r2 = 0;
    for (int k = 0; k < D; ++k) {
      const T below = other.low[k] - high[k], above = low[k] - other.high[k];
      const T gap = below > above ? below : above;
      if (gap > 0) r2 += gap * gap;
    }
    return r2 > reach2;
  }
};

// What one problem's tiles need to know: which of its blocks are near.
template <class T, int D> struct Near {
  enum { GROUP = 16 };
  const Box<T, D>* blocks;  // null: everything is near
  const Box<T, D>* groups;
  int64_t origin;  // the problem's first column
  T reach2;

  // How many blocks from `block` on may be skipped at once: 0, 1 or a group.
  int64_t skip(const Box<T, D>& here, int64_t block) const {
    if (block % GROUP == 0 && here.far(groups[block / GROUP], reach2)) return GROUP;
    return here.far(blocks[block], reach2) ? 1 : 0;
  }
};

template <class T, int D> struct Boxes {
  enum { GROUP = Near<T, D>::GROUP };
  Box<T, D>* all = 0;
  int64_t* first = 0;  // where a problem's boxes begin: blocks, then groups
  const int64_t* columns = 0;
  int64_t size = 0;

  ~Boxes() {
    free(all);
    free(first);
  }
  int64_t blocks(int64_t p) const { return (columns[p + 1] - columns[p] + size - 1) / size; }

  bool allocate(const int64_t* offsets, int64_t problems, int64_t block) {
    columns = offsets;
    size = block;
    first = static_cast<int64_t*>(malloc(sizeof(int64_t) * (problems + 1)));
    if (!first) return false;
    first[0] = 0;
    for (int64_t p = 0; p < problems; ++p) first[p + 1] = first[p] + blocks(p) + (blocks(p) + GROUP - 1) / GROUP;
    all = static_cast<Box<T, D>*>(malloc(sizeof(Box<T, D>) * (first[problems] + 1)));
    return all != 0;
  }
  template <class Bad> void fill(int64_t p, const T* y, const Bad& bad) {
    const int64_t count = blocks(p);
    Box<T, D>*box = all + first[p], *group = box + count;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = columns[p] + i * size, stop = begin + size, end = stop < columns[p + 1] ? stop : columns[p + 1];
      box[i].around(y + begin * D, end - begin);
      if (bad(begin, end)) box[i].nan();
      Box<T, D>& whole = group[i / GROUP];
      if (i % GROUP == 0) whole = box[i];
      else if (box[i].is_nan()) whole.nan();
      else if (!whole.is_nan()) whole.join(box[i]);
    }
  }
  Near<T, D> near(int64_t p, double reach) const {
    const Near<T, D> out = {all + first[p], all + first[p] + blocks(p), columns[p], T(reach * reach)};
    return out;
  }
};
