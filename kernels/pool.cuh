// Windows of pools: which pixels of the input an output covers, and which outputs cover a pixel.
#pragma once
#include "block.cuh"
#ifndef EMULATED
#include <type_traits>
#endif

struct Pool {
    int h, w, c, oh, ow, kh, kw, stride_h, stride_w, pad_h, pad_w;
};

// An element of a tensor (N, H, W, C).
struct Element {
    long long sample;
    int row, column, channel;
};
__device__ __forceinline__ Element element(long long i, int h, int w, int c) {
    const long long pixel = i / c;
    return {pixel / ((long long)h * w), (int)(pixel / w % h), (int)(pixel % w), (int)(i % c)};
}
__device__ __forceinline__ long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// N neighbours as one access.
template <typename T, int N> struct alignas(N * sizeof(T)) Run {
    T at[N];
};
template <int N, typename T> __device__ __forceinline__ Run<T, N> load_run(const T* x) { return *(const Run<T, N>*)x; }
template <int N, typename T> __device__ __forceinline__ void store_run(T* y, const float (&values)[N]) {
    Run<T, N> run;
#pragma unroll
    for (int j = 0; j < N; ++j) run.at[j] = from_float<T>(values[j]);
    *(Run<T, N>*)y = run;
}
// f(size, i) for a thread's 16 bytes of n elements: all at once where channels and addresses allow it, else one by one.
template <typename T, class F, class... X>
__device__ __forceinline__ void each_run(long long n, int c, const F& f, const X*... x) {
    constexpr int V = Pack<T>::SIZE;
    const long long first = pack_start<T>();
    if (c % V == 0 && ((unsigned long long)x | ...) % 16 == 0) {
        if (first < n) f(std::integral_constant<int, V>(), first);
        return;
    }
    for (long long i = first; i < min(n, first + V); ++i) f(std::integral_constant<int, 1>(), i);
}

// The first output whose window may hold index i: windows begin at o stride - pad.
__device__ __forceinline__ int first_output(int i, int kernel, int stride, int pad) {
    return max(0, (i + pad - kernel + stride) / stride);
}
// One past the last such output.
__device__ __forceinline__ int end_output(int i, int stride, int pad, int outputs) {
    return min(outputs, (i + pad) / stride + 1);
}
