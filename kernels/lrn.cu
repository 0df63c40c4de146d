// Local response normalisation: s[c] = k + scale sum of x^2 over the window of c, y = x s^-beta (scale = alpha / size).
// The window of c is c - size / 2 ..= c + (size - 1) / 2, clipped at the edges of its group of channels. One thread
// processes 16 bytes; the terms of the windows are computed once per element and shared by the block.
#include "block.cuh"
#include "powers.cuh"

// Number of elements on each side of a block's own whose terms it also computes. Wider windows are added from memory.
constexpr int HALO = 32;

// One word is skipped after every 32, so that lanes 4 or 8 words apart access different banks.
__device__ constexpr int place(int at) { return at + at / 32; }

// sums[j] = the sum of the terms of channels c - before ..= c + after in the group of a thread's element j, where c is
// the channel of the element. `own` holds the terms of the thread's elements; term(i) is that of element i.
template <int V, class Term>
__device__ __forceinline__ void window_sums(float (&sums)[V], const float (&own)[V], long long n, int group, int before,
                                            int after, const Term& term) {
    constexpr int OWN = 256 * V;
    using Terms = float[place(OWN + 2 * HALO)];
    SHARED(Terms, terms);
    const int first = HALO + threadIdx.x * V;
    const long long begin = (long long)blockIdx.x * OWN - HALO;
    int c = (int)((begin + first) % group);
    if (max(before, after) > HALO) {
#pragma unroll 1
        for (int j = 0; j < V; ++j) {
            const long long i = begin + first + j;
            float sum = 0.0f;
            for (int d = -min(before, c); d <= min(after, group - 1 - c) && i < n; ++d) sum += term(i + d);
            terms[place(first + j)] = sum;
            if (++c == group) c = 0;
        }
#pragma unroll
        for (int j = 0; j < V; ++j) sums[j] = terms[place(first + j)];
        return;
    }
#pragma unroll
    for (int j = 0; j < V; ++j) terms[place(first + j)] = own[j];
    const int t = threadIdx.x, outside = t < HALO ? HALO - 1 - t : OWN + t;
    if (t < HALO ? t < before : t < HALO + after) {
        const long long i = begin + outside;
        if (i >= 0 && i < n) terms[place(outside)] = term(i);
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < V; ++j) {
        const int end = first + j + min(after, group - 1 - c);
        float sum = 0.0f;
        for (int at = first + j - min(before, c); at <= end; ++at) sum += terms[place(at)];
        sums[j] = sum;
        if (++c == group) c = 0;
    }
}

template <typename T>
__device__ void lrn_forward(
    const T* x,  // (pixels, C), C a multiple of group
    T* y,        // (pixels, C)
    T* kept,     // (pixels, C), or null: s
    long long n, int group, int size, float scale, float beta, float k) {
    constexpr int V = Vector<T>::SIZE;
    const long long i = vector_start<T>();
    Vector<T> vector = load_vector(x, i, n), s;
    float squares[V], sums[V];
#pragma unroll
    for (int j = 0; j < V; ++j) squares[j] = to_float(vector.at[j]) * to_float(vector.at[j]);
    const auto square = [=](long long i) { return to_float(x[i]) * to_float(x[i]); };
    window_sums(sums, squares, n, group, size / 2, (size - 1) / 2, square);
#pragma unroll
    for (int j = 0; j < V; ++j) {
        const float sum = k + scale * sums[j];
        s.at[j] = from_float<T>(sum);
        vector.at[j] = from_float<T>(to_float(vector.at[j]) * powers(sum, beta).beta);
    }
    if (kept) store_vector(kept, i, n, s);
    store_vector(y, i, n, vector);
}
KERNEL(lrn_forward, f32, bf16)

// slope = 2 scale beta; the windows that hold c are those of c - (size - 1) / 2 ..= c + size / 2.
template <typename T>
__device__ void lrn_backward(
    const T* x,     // (pixels, C)
    const T* kept,  // (pixels, C): s
    const T* dy,    // (pixels, C)
    T* dx,          // (pixels, C): 0 where x <= 0 if relu is not 0
    long long n, int group, int size, float slope, float beta, int relu) {
    constexpr int V = Vector<T>::SIZE;
    const long long i = vector_start<T>();
    const Vector<T> input = load_vector(x, i, n), s = load_vector(kept, i, n);
    Vector<T> vector = load_vector(dy, i, n);
    float scaled[V], terms[V], sums[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
        const Powers p = powers(to_float(s.at[j]), beta);
        scaled[j] = to_float(vector.at[j]) * p.beta;
        terms[j] = scaled[j] * to_float(input.at[j]) * p.one;
    }
    const auto term = [=](long long i) {
        const Powers p = powers(to_float(kept[i]), beta);
        return to_float(dy[i]) * p.beta * to_float(x[i]) * p.one;
    };
    window_sums(sums, terms, n, group, (size - 1) / 2, size / 2, term);
#pragma unroll
    for (int j = 0; j < V; ++j)
        vector.at[j] = from_float<T>(masked(to_float(input.at[j]), scaled[j] - slope * to_float(input.at[j]) * sums[j], relu));
    store_vector(dx, i, n, vector);
}
KERNEL(lrn_backward, f32, bf16)
