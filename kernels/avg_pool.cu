// Means over windows. With `padded`, padding inside a window counts as zeros; what extends beyond it never counts.
#include "pool.cuh"

__device__ __forceinline__ int extent(int begin, int kernel, int size, int after, bool padded) {
    if (padded) return min(begin + kernel, size + after) - begin;
    return min(begin + kernel, size) - max(begin, 0);
}
__device__ __forceinline__ float share(int top, int left, const PoolGeometry& p, bool padded) {
    return 1.0f / (float)(extent(top, p.kh, p.h, p.after_h, padded) * extent(left, p.kw, p.w, p.after_w, padded));
}

template <typename T>
__device__ void avg_pool_forward(
    const T* x,  // (N, H, W, C)
    T* y,        // (N, OH, OW, C)
    long long n, PoolGeometry p, int padded) {
    const auto one = [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        const Element e = element_at(i, p.oh, p.ow, p.c);
        const int top = e.row * p.stride_h - p.pad_h, left = e.column * p.stride_w - p.pad_w;
        const T* image = x + e.sample * p.h * p.w * p.c + e.channel;
        float sums[N] = {};
        for (int h = max(top, 0); h < min(top + p.kh, p.h); ++h)
            for (int w = max(left, 0); w < min(left + p.kw, p.w); ++w) {
                const Run<T, N> run = load_run<N>(image + ((long long)h * p.w + w) * p.c);
#pragma unroll
                for (int j = 0; j < N; ++j) sums[j] += to_float(run.at[j]);
            }
        const float part = share(top, left, p, padded);
#pragma unroll
        for (int j = 0; j < N; ++j) sums[j] *= part;
        store_run(y + i, sums);
    };
    each_run<T>(n, p.c, one, x, y);
}
KERNEL(avg_pool_forward, f32, bf16)

template <typename T>
__device__ void avg_pool_backward(
    const T* dy,  // (N, OH, OW, C)
    T* dx,        // (N, H, W, C)
    long long n, PoolGeometry p, int padded) {
    const auto one = [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        const Element e = element_at(i, p.h, p.w, p.c);
        float sums[N] = {};
        const int end_h = end_output(e.row, p.stride_h, p.pad_h, p.oh);
        const int end_w = end_output(e.column, p.stride_w, p.pad_w, p.ow);
        for (int oh = first_output(e.row, p.kh, p.stride_h, p.pad_h); oh < end_h; ++oh)
            for (int ow = first_output(e.column, p.kw, p.stride_w, p.pad_w); ow < end_w; ++ow) {
                const float part = share(oh * p.stride_h - p.pad_h, ow * p.stride_w - p.pad_w, p, padded);
                const Run<T, N> run = load_run<N>(dy + ((e.sample * p.oh + oh) * p.ow + ow) * p.c + e.channel);
#pragma unroll
                for (int j = 0; j < N; ++j) sums[j] += to_float(run.at[j]) * part;
            }
        store_run(dx + i, sums);
    };
    each_run<T>(n, p.c, one, dy, dx);
}
KERNEL(avg_pool_backward, f32(256, 4), bf16)
