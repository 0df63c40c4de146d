// Means over windows that divide the image evenly: window i of `windows` covers the indices floor(i n / windows) to
// ceil((i + 1) n / windows) - 1 of n.
#include "pool.cuh"

__device__ __forceinline__ int window_begin(int i, int windows, int n) { return (int)((long long)i * n / windows); }
__device__ __forceinline__ int window_end(int i, int windows, int n) {
    return (int)(((long long)(i + 1) * n + windows - 1) / windows);
}
__device__ __forceinline__ int window_size(int i, int windows, int n) {
    return window_end(i, windows, n) - window_begin(i, windows, n);
}

template <typename T>
__device__ void adaptive_avg_pool_forward(
    const T* x,  // (N, h, w, c)
    T* y,        // (N, oh, ow, c)
    long long n, int h, int w, int oh, int ow, int c) {
    const long long first = vector_start<T>();
    for (long long i = first; i < min(n, first + Vector<T>::SIZE); ++i) {
        const Element e = element_at(i, oh, ow, c);
        const int top = window_begin(e.row, oh, h), bottom = window_end(e.row, oh, h);
        const int left = window_begin(e.column, ow, w), right = window_end(e.column, ow, w);
        float sum = 0.0f;
        for (int row = top; row < bottom; ++row)
            for (int column = left; column < right; ++column)
                sum += to_float(x[((e.sample * h + row) * w + column) * c + e.channel]);
        y[i] = from_float<T>(sum / (float)((bottom - top) * (right - left)));
    }
}
KERNEL(adaptive_avg_pool_forward, f32, bf16)

template <typename T>
__device__ void adaptive_avg_pool_backward(
    const T* dy,  // (N, oh, ow, c)
    T* dx,        // (N, h, w, c)
    long long n, int h, int w, int oh, int ow, int c) {
    const long long first = vector_start<T>();
    for (long long i = first; i < min(n, first + Vector<T>::SIZE); ++i) {
        const Element e = element_at(i, h, w, c);
        const int bottom = window_end(e.row, h, oh), right = window_end(e.column, w, ow);
        float sum = 0.0f;
        for (int row = window_begin(e.row, h, oh); row < bottom; ++row)
            for (int column = window_begin(e.column, w, ow); column < right; ++column)
                sum += to_float(dy[((e.sample * oh + row) * ow + column) * c + e.channel]) /
                       (float)(window_size(row, oh, h) * window_size(column, ow, w));
        dx[i] = from_float<T>(sum);
    }
}
KERNEL(adaptive_avg_pool_backward, f32, bf16)
