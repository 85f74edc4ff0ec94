// The field of the normalized metric and its adjoint on CUDA, one launch each: what shapeflow/metric/sinkhorn.py says product by product, for problems
// whose kernel matrix fits in the shared memory of the blocks that are resident at once (shared_matrix.h).
//
// Launched by shapeflow/ops/backends/cuda_field.py; every argument is 8 bytes.
#include "shared_matrix.h"

// A column of pair sums, or a row of them: position, feature, and how they move.
template <class T, int D> struct Moving {
  T x[D], dx[D], b[D + 2], db[D + 2];
};

// What is solved at a field, guessed and remembered: `terms` and `room` of shapeflow/warm.py. Any of the guess's may be null; all: nothing is known.
template <class T> struct Solved {
  const T *past, *step, *turn, *before;
  double weight;  // of `turn`
  T *kept, *moved, *turned;

  SF_FN bool known() const { return past || step; }
  SF_FN T guess(long long i) const {
    T v = past ? past[i] : T(0);
    if (step) v += step[i];
    if (turn) v += T(weight) * turn[i];
    if (before) v -= before[i];
    return v;
  }
  SF_FN void learn(long long i, T v) const {
    if (!kept) return;
    const T now = past ? v - past[i] : v;
    turned[i] = step ? now - step[i] : now;
    moved[i] = now;
    kept[i] = v;
  }
};

// l with exp(l) K(exp(l) mu) = 1, as `scale` of scaling.cpp; returns the last residual where it misses the tolerance, else 0. `cold`: there is no guess.
template <class T, int PER, class M>
SF_FN double scale(M& m, const T (&mu)[PER], bool cold, T (&l)[PER], double alpha, double beta, double contraction, double tolerance, double rounding,
                   long long steps) {
  T w[1][PER], y[1][PER], before[PER];
  double bad = 0;
  m.each([&](int k, int) { if (nonfinite(l[k])) bad = 1; });
  cold = m.largest(bad) > 0 || cold;
  SF_UNROLL for (int k = 0; k < PER; ++k) before[k] = l[k], w[0][k] = cold ? mu[k] : exp(l[k]) * mu[k];
  double worst = 1e300;
  for (long long step = cold ? -1 : 0; step < steps; ++step) {
    m.product(w, y);
    double largest = 0;
    m.each([&](int k, int) {
      if (step < 0) {
        before[k] = l[k] = T(-0.5) * log(y[0][k]);
      } else {
        const T old = l[k], r = old + log(y[0][k]);
        l[k] = old - T(alpha) * r + T(beta) * (old - before[k]);
        before[k] = old;
        const double size = r < 0 ? -double(r) : double(r);
        largest = size > largest ? size : largest;
      }
      w[0][k] = exp(l[k]) * mu[k];
    });
    if (step < 0) continue;
    const double last = worst;
    worst = m.largest(largest);
    if (contraction * worst <= tolerance || (last <= rounding && worst > 0.7 * last)) return 0;
  }
  return worst;
}

// u with (I + H K H) u = right, H = diag(half), from a guess that is not used if it is worse than none; NaN if the right-hand side is not finite.
//
// Conjugate gradients with the sums of a step taken together: with s = A p, the next (r, r) is (r, r) - 2 length (r, s) + length^2 (s, s), which says
// when to stop and how to turn. The exact one comes with the next step's, so that nothing adds up.
template <class T, int PER, class M>
SF_FN bool solve(M& m, const T (&half)[PER], const T (&right)[PER], bool cold, T (&u)[PER], double tolerance, long long steps) {
  T r[PER], p[PER], w[1][PER], y[1][PER];
  double norm[2] = {0, 0};  // of the right-hand side, and of what the guess leaves of it
  if (!cold) {
    SF_UNROLL for (int k = 0; k < PER; ++k) w[0][k] = half[k] * u[k];
    m.product(w, y);
  }
  SF_UNROLL for (int k = 0; k < PER; ++k) r[k] = T(0);
  m.each([&](int k, int) {
    r[k] = cold ? right[k] : right[k] - (u[k] + half[k] * y[0][k]);
    norm[0] += double(right[k]) * double(right[k]);
    norm[1] += double(r[k]) * double(r[k]);
  });
  m.sums(norm);
  const bool unused = cold || !(norm[1] < norm[0]);
  double square = unused ? norm[0] : norm[1];
  SF_UNROLL for (int k = 0; k < PER; ++k) {
    if (unused) u[k] = T(0), r[k] = right[k];
    p[k] = r[k];
  }
  const double goal = tolerance * tolerance * norm[0] + 1e-300;
  for (long long step = 0; step < steps && square > goal; ++step) {
    SF_UNROLL for (int k = 0; k < PER; ++k) w[0][k] = half[k] * p[k];
    m.product(w, y);
    double sums[4] = {0, 0, 0, 0};  // (r, r), (p, s), (r, s), (s, s)
    T s[PER];
    SF_UNROLL for (int k = 0; k < PER; ++k) s[k] = T(0);
    m.each([&](int k, int) {
      s[k] = p[k] + half[k] * y[0][k];
      const double rest = r[k], image = s[k];
      sums[0] += rest * rest;
      sums[1] += double(p[k]) * image;
      sums[2] += rest * image;
      sums[3] += image * image;
    });
    m.sums(sums);
    const double length = sums[0] / sums[1];
    square = sums[0] - length * (2 * sums[2] - length * sums[3]);
    const T turn = T(square / sums[0]);
    SF_UNROLL for (int k = 0; k < PER; ++k) {
      u[k] += T(length) * p[k];
      r[k] -= T(length) * s[k];
      p[k] = r[k] + turn * p[k];
    }
  }
  const bool lost = !(norm[0] < 1e300);
  SF_UNROLL for (int k = 0; k < PER; ++k) if (lost) set_nan(u[k]);
  return lost;
}

// (v, dH/dq) and what the adjoint needs: l (N,), u (N,) with w = sqrt(mu) u. `left` (B,) keeps the largest residual ever left by a scaling.
template <class T, int D, int PER, int... K>
__global__ void __launch_bounds__(MATRIX_THREADS, 1)
    shapeflow_field(const long long* offsets, const T* sigma, const double* terms, double epsilon, const T* x, const T* masses, const T* momenta, T* log_scale,
                    T* solution, T* velocity, T* gradient, Word* mail, long long round, double* left, const T* l_past, const T* l_step, const T* l_turn, const T* l_before,
                    double l_weight, T* l_kept, T* l_moved, T* l_turned, const T* u_past, const T* u_step, const T* u_turn, const T* u_before,
                    double u_weight, T* u_kept, T* u_moved, T* u_turned, double alpha, double beta, double contraction, double tolerance,
                    double rounding, long long steps, long long size, long long total) {
  enum { E = D + 2 };
  SharedMatrix<T, D, PER, E, K...> m;
  if (!m.begin(offsets, sigma, terms, epsilon, mail, round, total, size)) return;
  const Solved<T> known_l = {l_past, l_step, l_turn, l_before, l_weight, l_kept, l_moved, l_turned};
  const Solved<T> known_u = {u_past, u_step, u_turn, u_before, u_weight, u_kept, u_moved, u_turned};
  const long long first = m.first;

  // What is needed again after a solve is stored or read again: a solver's vectors fill the registers.
  T mu[PER], l[PER], u[PER];
  SF_UNROLL for (int k = 0; k < PER; ++k) mu[k] = l[k] = u[k] = T(0);
  m.each([&](int k, int i) {
    mu[k] = masses[first + i];
    l[k] = known_l.guess(first + i);
  });
  m.fill(x);
  __syncthreads();

  const double worst = scale(m, mu, !known_l.known(), l, alpha, beta, contraction, tolerance, rounding, steps);
  double& most = left[blockIdx.x / size];
  if (m.leader() && worst > most) most = worst;

  T lambda[PER], half[PER], right[PER], in[D][PER], v[D][PER];
  SF_UNROLL for (int k = 0; k < PER; ++k) {
    lambda[k] = exp(l[k]), half[k] = sqrt(mu[k]) * lambda[k], right[k] = T(0);
    SF_UNROLL for (int c = 0; c < D; ++c) in[c][k] = T(0);
  }
  m.each([&](int k, int i) {
    SF_UNROLL for (int c = 0; c < D; ++c) in[c][k] = lambda[k] * momenta[(first + i) * D + c];
    u[k] = known_u.guess(first + i);
    if (!m.owns(i)) return;
    log_scale[first + i] = l[k];
    known_l.learn(first + i, l[k]);
  });
  m.product(in, v);
  m.each([&](int k, int i) {
    T work = T(0);
    SF_UNROLL for (int c = 0; c < D; ++c) {
      work += momenta[(first + i) * D + c] * (v[c][k] *= lambda[k]);
      if (m.owns(i)) velocity[(first + i) * D + c] = v[c][k];
    }
    right[k] = work / sqrt(mu[k]);
  });
  const bool lost = solve(m, half, right, !known_u.known(), u, tolerance, steps);

  // The features of dH/dq: a = lambda [p, -w, -mu] and b = lambda [p, mu, w].
  const auto column = [&](int k, int j) {
    Moving<T, D> out;
    SF_UNROLL for (int c = 0; c < D; ++c) out.x[c] = x[(first + j) * D + c], out.b[c] = lambda[k] * momenta[(first + j) * D + c];
    out.b[D] = lambda[k] * mu[k], out.b[D + 1] = lambda[k] * (sqrt(mu[k]) * u[k]);
    return out;
  };
  m.each([&](int k, int i) {
    if (!m.owns(i)) return;
    const Moving<T, D> own = column(k, i);
    T* row = m.row(i);
    SF_UNROLL for (int c = 0; c < D; ++c) {
      row[c] = own.x[c], row[D + c] = own.b[c];
      if (lost) set_nan(velocity[(first + i) * D + c]);
    }
    row[2 * D] = -own.b[D + 1], row[2 * D + 1] = -own.b[D];
    solution[first + i] = u[k];
    known_u.learn(first + i, u[k]);
  });
  __syncthreads();
  m.template over_pairs<(D < 3 ? D : 4), D>(column, [&](const Moving<T, D>& y, const T* row, T* g) {
    pair<GRADIENT, D, E, 0>(m.kernel, row, (const T*)0, row + D, (const T*)0, y.x, (const T*)0, y.b, (const T*)0, (T*)0, g);
  });
  m.template store<D>(gradient, [&](T g) { return g * m.kernel.scale_g; });
}

// The adjoint of that field: its derivative along (q' = h, p' = V), with the two results exchanged (shapeflow/metric/base.py). y and z (N,) are solved
// on the way: l' = y / sqrt(mu), w' = sqrt(mu) z.
template <class T, int D, int PER, int... K>
__global__ void __launch_bounds__(MATRIX_THREADS, 1)
    shapeflow_adjoint(const long long* offsets, const T* sigma, const double* terms, double epsilon, const T* x, const T* masses, const T* momenta,
                      const T* log_scale, const T* solution, const T* velocity, const T* V, const T* h, T* q_bar, T* p_bar, Word* mail, long long round, const T* y_past,
                      const T* y_step, const T* y_turn, const T* y_before, double y_weight, T* y_kept, T* y_moved, T* y_turned, const T* z_past,
                      const T* z_step, const T* z_turn, const T* z_before, double z_weight, T* z_kept, T* z_moved, T* z_turned, double tolerance,
                      long long steps, long long size, long long total) {
  enum { E = D + 2, A = 2 * D, B = A + E };  // a row: x, h, a, a'
  SharedMatrix<T, D, PER, E, K...> m;
  if (!m.begin(offsets, sigma, terms, epsilon, mail, round, total, size)) return;
  const Solved<T> known_y = {y_past, y_step, y_turn, y_before, y_weight, y_kept, y_moved, y_turned};
  const Solved<T> known_z = {z_past, z_step, z_turn, z_before, z_weight, z_kept, z_moved, z_turned};
  const long long first = m.first;

  T mu[PER], lambda[PER], y[PER];
  SF_UNROLL for (int k = 0; k < PER; ++k) mu[k] = lambda[k] = y[k] = T(0);
  m.each([&](int k, int i) {
    mu[k] = masses[first + i];
    lambda[k] = exp(log_scale[first + i]);
  });
  const auto w = [&](int k, int i) { return sqrt(mu[k]) * solution[first + i]; };
  m.fill(x);
  const auto features = [&](int k, int i, T* b) {
    SF_UNROLL for (int c = 0; c < D; ++c) b[c] = lambda[k] * momenta[(first + i) * D + c];
    b[D] = lambda[k] * mu[k], b[D + 1] = lambda[k] * w(k, i);
  };
  m.each([&](int k, int i) {
    if (!m.owns(i)) return;
    T *row = m.row(i), b[E];
    features(k, i, b);
    SF_UNROLL for (int c = 0; c < D; ++c) row[c] = x[(first + i) * D + c], row[D + c] = h[(first + i) * D + c], row[A + c] = b[c];
    row[A + D] = -b[D + 1], row[A + D + 1] = -b[D];
  });
  __syncthreads();

  // The kernel moving with q' = h: K' [lambda p, lambda mu, lambda w].
  const auto column = [&](int k, int j) {
    Moving<T, D> out;
    SF_UNROLL for (int c = 0; c < D; ++c) out.x[c] = x[(first + j) * D + c], out.dx[c] = h[(first + j) * D + c];
    features(k, j, out.b);
    return out;
  };
  m.template over_pairs<(E <= 4 ? 4 : 8), E>(column, [&](const Moving<T, D>& y, const T* row, T* sum) {
    T unused[D];
    SF_UNROLL for (int c = 0; c < D; ++c) unused[c] = T(0);
    pair<TANGENT, D, E, HAS_DX | HAS_DY>(m.kernel, row, row + D, row + A, (const T*)0, y.x, y.dx, y.b, (const T*)0, sum, unused);
  });
  T half[PER], right[PER];
  SF_UNROLL for (int k = 0; k < PER; ++k) half[k] = sqrt(mu[k]) * lambda[k], right[k] = T(0);
  {
    T moved[E][PER];
    m.exchange(moved);
    m.each([&](int k, int i) {
      SF_UNROLL for (int c = 0; c < E; ++c) m.aside(i)[c] = moved[c][k] * m.kernel.scale_v;
      right[k] = -half[k] * m.aside(i)[D];
      y[k] = known_y.guess(first + i);
    });
  }

  // The scaling follows: (I + K~ D) l' = -lambda K'(lambda mu).
  bool lost = solve(m, half, right, !known_y.known(), y, tolerance, steps);

  // K of b' = lambda [l' p + V, l' mu, l' w + w'] but for w', which is not known yet; then v' = l' v + lambda (K' (lambda p) + that).
  const auto moving_p = [&](int k, int i, int c) {
    return lambda[k] * (y[k] / sqrt(mu[k]) * momenta[(first + i) * D + c] + V[(first + i) * D + c]);
  };
  T z[PER];
  SF_UNROLL for (int k = 0; k < PER; ++k) z[k] = T(0);
  {
    T in[D + 1][PER], pushed[D + 1][PER];
    SF_UNROLL for (int c = 0; c <= D; ++c) SF_UNROLL for (int k = 0; k < PER; ++k) in[c][k] = T(0);
    m.each([&](int k, int i) {
      SF_UNROLL for (int c = 0; c < D; ++c) in[c][k] = moving_p(k, i, c);
      in[D][k] = lambda[k] * (y[k] / sqrt(mu[k])) * w(k, i);
    });
    m.product(in, pushed);

    // (I + D K~) w' = a' - D (K~)' w, where K~ w = (a - w) / mu is known from the way there.
    m.each([&](int k, int i) {
      const T* moved = m.aside(i);
      const T rate = y[k] / sqrt(mu[k]);
      T work = T(0), work_rate = T(0);
      SF_UNROLL for (int c = 0; c < D; ++c) {
        const long long at = (first + i) * D + c;
        const T v_rate = rate * velocity[at] + lambda[k] * (moved[c] + pushed[c][k]);
        work += momenta[at] * velocity[at];
        work_rate += V[at] * velocity[at] + momenta[at] * v_rate;
        if (m.owns(i)) p_bar[at] = v_rate;
      }
      const T averaged = (work - w(k, i)) / mu[k];
      right[k] = (work_rate - mu[k] * (rate * averaged + lambda[k] * (moved[D + 1] + pushed[D][k]))) / sqrt(mu[k]);
      z[k] = known_z.guess(first + i);
    });
  }
  lost = solve(m, half, right, !known_z.known(), z, tolerance, steps) || lost;

  const auto rates = [&](int k, int i, T* b) {  // b'
    const T rate = y[k] / sqrt(mu[k]);
    SF_UNROLL for (int c = 0; c < D; ++c) b[c] = moving_p(k, i, c);
    b[D] = lambda[k] * mu[k] * rate, b[D + 1] = lambda[k] * (rate * w(k, i) + sqrt(mu[k]) * z[k]);
  };
  m.each([&](int k, int i) {
    if (!m.owns(i)) return;
    T *row = m.row(i), b[E];
    rates(k, i, b);
    SF_UNROLL for (int c = 0; c < D; ++c) {
      row[B + c] = b[c];
      if (lost) set_nan(p_bar[(first + i) * D + c]);
    }
    row[B + D] = -b[D + 1], row[B + D + 1] = -b[D];
    known_y.learn(first + i, y[k]);
    known_z.learn(first + i, z[k]);
  });
  __syncthreads();
  const auto moving = [&](int k, int j) {
    Moving<T, D> out = column(k, j);
    rates(k, j, out.db);
    return out;
  };
  m.template over_pairs<(D < 3 ? D : 4), D>(moving, [&](const Moving<T, D>& y, const T* row, T* g) {
    T unused[E];
    SF_UNROLL for (int c = 0; c < E; ++c) unused[c] = T(0);
    pair<TANGENT, D, E, HAS_DX | HAS_DA | HAS_DY | HAS_DB>(m.kernel, row, row + D, row + A, row + B, y.x, y.dx, y.b, y.db, unused, g);
  });
  m.template store<D>(q_bar, [&](T g) { return g * m.kernel.scale_g; });
}
