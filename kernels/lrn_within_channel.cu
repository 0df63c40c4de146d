// Local response normalisation within a channel: s = k + scale sum of x^2 over the pixels at most `reach` rows and columns away
// (scale = alpha / size^2, reach = size / 2), y = x s^-beta.
#include "pool.cuh"
#include "powers.cuh"

// The sum of term(index) over the pixels around an element, in its channel.
template <class Term>
__device__ __forceinline__ float around(const Element& e, int h, int w, int c, int reach, const Term& term) {
    float sum = 0.0f;
    for (int row = max(0, e.row - reach); row <= min(h - 1, e.row + reach); ++row)
        for (int column = max(0, e.column - reach); column <= min(w - 1, e.column + reach); ++column)
            sum += term(((e.sample * h + row) * w + column) * c + e.channel);
    return sum;
}

template <typename T>
__device__ void lrn_within_channel_forward(
    const T* x,  // (N, h, w, c)
    T* y,        // (N, h, w, c)
    T* kept,     // (N, h, w, c), or null: s
    long long n, int h, int w, int c, int reach, float scale, float beta, float k) {
    const long long first = vector_start<T>();
    for (long long i = first; i < min(n, first + Vector<T>::SIZE); ++i) {
        const auto square = [=](long long i) { return to_float(x[i]) * to_float(x[i]); };
        const float s = k + scale * around(element_at(i, h, w, c), h, w, c, reach, square);
        if (kept) kept[i] = from_float<T>(s);
        y[i] = from_float<T>(to_float(x[i]) * powers(s, beta).beta);
    }
}
KERNEL(lrn_within_channel_forward, f32, bf16)

// slope = 2 scale beta.
template <typename T>
__device__ void lrn_within_channel_backward(
    const T* x,     // (N, h, w, c)
    const T* kept,  // (N, h, w, c): s
    const T* dy,    // (N, h, w, c)
    T* dx,          // (N, h, w, c)
    long long n, int h, int w, int c, int reach, float slope, float beta) {
    const long long first = vector_start<T>();
    for (long long i = first; i < min(n, first + Vector<T>::SIZE); ++i) {
        const auto term = [=](long long i) {
            const Powers p = powers(to_float(kept[i]), beta);
            return to_float(dy[i]) * p.beta * to_float(x[i]) * p.one;
        };
        const float sum = around(element_at(i, h, w, c), h, w, c, reach, term);
        const float scaled = to_float(dy[i]) * powers(to_float(kept[i]), beta).beta;
        dx[i] = from_float<T>(scaled - slope * to_float(x[i]) * sum);
    }
}
KERNEL(lrn_within_channel_backward, f32, bf16)
