// Radial functions k(x, y) = sum_m w_m f_m(c_m r^2), c_m = 1 / (ratio_m sigma)^2, with two derivatives, shared by the CPU and CUDA tiles.
//
// V is what one lane group holds (a SIMD vector on the CPU, a scalar on CUDA), T its scalar. The platform supplies exp2_(V), rsqrt_(V), rcp_(V).
//
// Every f here has derivatives of the form f' = kappa f1, f'' = kappa^2 f2 with f1, f2 > 0 cheap once f is known:
//
//                          f(s)                          kappa   f1            f2
//   gaussian               exp(-s)                       -1      f             f
//   laplacian              exp(eps - u), u = sqrt(s+eps^2)  -1/2    f/u           f/u^2 (1 + 1/u)
//   cauchy                 1/(1+s)                       -1      f^2           2 f^3
//   inverse_multiquadric   (1+s)^(-1/2)                  -1/2    f^3           3 f^5
//   energy                 (1+s)^(-1/4)                  -1/4    f/(1+s)       5 f/(1+s)^2
//
// A single term leaves all constants outside the pair loop:
//   k = scale_v f0,   2 dk/d(r^2) = scale_g f1,   4 d2k/d(r^2)^2 = scale_g eta f2,   eta = scale_g / scale_v = 2 c kappa.
// A sum cannot, so there scale_v = scale_g = eta = 1 and the weights sit inside.
#pragma once

enum Name { GAUSSIAN, LAPLACIAN, CAUCHY, INVERSE_MULTIQUADRIC, ENERGY };

template <int K> constexpr double kappa = K == GAUSSIAN || K == CAUCHY ? -1.0 : K == ENERGY ? -0.25 : -0.5;

// f1 and f2 from f alone, where they follow from it.
template <int K> constexpr bool follows_from_value = K != LAPLACIAN;
template <int K, class T, class V> SF_FN void derivatives(V f, V& f1, V& f2) {
  if constexpr (K == GAUSSIAN) {
    f1 = f;
    f2 = f;
  } else if constexpr (K == CAUCHY) {
    f1 = f * f;
    f2 = (f1 + f1) * f;
  } else if constexpr (K == INVERSE_MULTIQUADRIC) {
    const V h = f * f;
    f1 = h * f;
    f2 = (h * f1) * T(3);
  } else {  // 1/(1+s) = f^4
    const V square = f * f, h = square * square;
    f1 = f * h;
    f2 = (f1 * h) * T(5);
  }
}

template <class T> struct Term {
  T rate;        // c, or -c log2(e) for the gaussian
  T offset;      // eps^2, and eps log2(e), of the laplacian
  T shift;
  T w0, w1, w2;  // w, 2 w c kappa, 4 w c^2 kappa^2: used by sums only
};

template <int K, class V, class T> SF_FN void radial_term(V r2, const Term<T>& t, V& f, V& f1, V& f2) {
  constexpr T log2e = T(1.4426950408889634074);
  if constexpr (K == GAUSSIAN) {
    f = exp2_(r2 * t.rate);
  } else if constexpr (K == LAPLACIAN) {
    const V q = r2 * t.rate + t.offset;  // u^2 >= eps^2 > 0: smooth where points coincide
    const V i = rsqrt_(q);
    f = exp2_((q * i) * -log2e + t.shift);
    f1 = f * i;
    f2 = f1 * (i * i + i);
  } else if constexpr (K == CAUCHY) {
    f = rcp_(r2 * t.rate + T(1));
  } else if constexpr (K == INVERSE_MULTIQUADRIC) {
    f = rsqrt_(r2 * t.rate + T(1));
  } else {
    const V i = rsqrt_(r2 * t.rate + T(1));
    const V h = i * i;
    f = i * rsqrt_(i);
    f1 = f * h;
    f2 = (f1 * h) * T(5);
  }
  if constexpr (K == GAUSSIAN || K == CAUCHY || K == INVERSE_MULTIQUADRIC) derivatives<K, T>(f, f1, f2);
}

template <class T, int... K> struct Radial {
  static constexpr int count = sizeof...(K);
  Term<T> term[count];
  T scale_v, scale_g, eta;

  // Constants are formed in double: sigma^2 of a tiny or huge width must not overflow float before it is inverted.
  SF_FN void set(double sigma, const double* weight, const double* ratio, double epsilon) {
    constexpr int name[] = {K...};
    constexpr double slope[] = {kappa<K>...};
    const double log2e = 1.4426950408889634074;
    const double eps = epsilon > 1e-15 ? epsilon : 1e-15;
    double c = 0;
    for (int m = 0; m < count; ++m) {
      c = 1.0 / (ratio[m] * sigma * ratio[m] * sigma);
      term[m].rate = T(name[m] == GAUSSIAN ? -c * log2e : c);
      term[m].offset = T(eps * eps);
      term[m].shift = T(eps * log2e);
      term[m].w0 = T(weight[m]);
      term[m].w1 = T(2 * weight[m] * c * slope[m]);
      term[m].w2 = T(4 * weight[m] * c * c * slope[m] * slope[m]);
    }
    scale_v = count == 1 ? T(weight[0]) : T(1);
    scale_g = count == 1 ? T(2 * weight[0] * c * slope[0]) : T(1);
    eta = count == 1 ? T(2 * c * slope[0]) : T(1);
  }

  // Whether f0 alone gives f1 and f2, and how.
  static constexpr bool follows = count == 1 && (follows_from_value<K> && ...);
  template <class V> SF_FN void from_value(V f0, V& f1, V& f2) const { (derivatives<K, T>(f0, f1, f2), ...); }

  template <class V> SF_FN void operator()(V r2, V& f0, V& f1, V& f2) const {
    if constexpr (count == 1) {
      (radial_term<K>(r2, term[0], f0, f1, f2), ...);
    } else {
      int m = 0;
      (add<K>(r2, m++, f0, f1, f2), ...);
    }
  }

 private:
  template <int N, class V> SF_FN void add(V r2, int m, V& f0, V& f1, V& f2) const {
    const Term<T>& t = term[m];
    V h0, h1, h2;
    radial_term<N>(r2, t, h0, h1, h2);
    f0 = m == 0 ? h0 * t.w0 : f0 + h0 * t.w0;
    f1 = m == 0 ? h1 * t.w1 : f1 + h1 * t.w1;
    f2 = m == 0 ? h2 * t.w2 : f2 + h2 * t.w2;
  }
};
