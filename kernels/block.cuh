// The basis of every kernel file: shared memory, element types, 16-byte accesses, and reductions in a fixed order.
#pragma once
#ifndef EMULATED
#include <cuda_bf16.h>
#include <type_traits>
#include <utility>
#define SHARED(type, name) __shared__ type name
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

// KERNEL(name, f32, bf16): build.rs generates an entry for each variant of the function `name` (build/signatures.rs).
#define KERNEL(...)

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

__device__ __forceinline__ long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// The elements that one thread of an element-wise kernel processes, read and written as 16 bytes.
template <typename T> struct alignas(16) Vector {
    static constexpr int SIZE = 16 / sizeof(T);
    T at[SIZE];
};

template <typename T> __device__ __forceinline__ long long vector_start() {
    return ((long long)blockIdx.x * blockDim.x + threadIdx.x) * Vector<T>::SIZE;
}
template <typename T> __device__ __forceinline__ Vector<T> load_vector(const T* x, long long i, long long n) {
    Vector<T> vector;
    if (i + Vector<T>::SIZE <= n && (unsigned long long)(x + i) % 16 == 0) return *(const Vector<T>*)(x + i);
    for (int j = 0; j < Vector<T>::SIZE; ++j) vector.at[j] = i + j < n ? x[i + j] : from_float<T>(0.0f);
    return vector;
}
template <typename T> __device__ __forceinline__ void store_vector(T* y, long long i, long long n, const Vector<T>& vector) {
    if (i + Vector<T>::SIZE <= n && (unsigned long long)(y + i) % 16 == 0) {
        *(Vector<T>*)(y + i) = vector;
        return;
    }
    for (int j = 0; j < Vector<T>::SIZE; ++j)
        if (i + j < n) y[i + j] = vector.at[j];
}

// A value that an element-wise kernel reads from an operand or writes to its output (build/signatures.rs).
using element = float;

// y[i] = f(x[i], ...) for the n elements, one vector per thread.
template <typename T, class F, class... X>
__device__ __forceinline__ void map_elements(T* y, long long n, const F& f, const X*... x) {
    const long long i = vector_start<T>();
    if (i >= n) return;
    const auto map = [&](const auto&... vectors) {
        Vector<T> result;
        for (int j = 0; j < Vector<T>::SIZE; ++j) result.at[j] = from_float<T>(f(to_float(vectors.at[j])...));
        store_vector(y, i, n, result);
    };
    map(load_vector(x, i, n)...);
}

// N neighbouring elements, for one access.
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
// N neighbouring values; if there are several, the address is a multiple of 16 bytes.
template <int N> __device__ __forceinline__ void load_floats(const float* x, float (&to)[N]) {
    constexpr int V = N % 4 == 0 ? 4 : 1;
#pragma unroll
    for (int i = 0; i < N; i += V) {
        const Run<float, V> run = load_run<V>(x + i);
#pragma unroll
        for (int j = 0; j < V; ++j) to[i + j] = run.at[j];
    }
}
// Calls f(size), where size is the number of elements per access in a row of `width`: 16 bytes if width and addresses
// allow it, otherwise one element.
template <typename T, class F, class... X>
__device__ __forceinline__ void by_alignment(long long width, const F& f, const X*... x) {
    constexpr int V = Vector<T>::SIZE;
    if (width % V == 0 && ((unsigned long long)x | ...) % 16 == 0)
        f(std::integral_constant<int, V>());
    else
        f(std::integral_constant<int, 1>());
}
// Calls f(size, i) for a thread's 16 bytes of the n elements: for all at once if channels and addresses allow it,
// otherwise one by one.
template <typename T, class F, class... X>
__device__ __forceinline__ void each_run(long long n, int c, const F& f, const X*... x) {
    constexpr int V = Vector<T>::SIZE;
    const long long first = vector_start<T>();
    if (c % V == 0 && ((unsigned long long)x | ...) % 16 == 0) {
        if (first < n) f(std::integral_constant<int, V>(), first);
        return;
    }
    for (long long i = first; i < min(n, first + V); ++i) f(std::integral_constant<int, 1>(), i);
}

// The value that a kernel writes instead of y if it applies the relu that follows.
__device__ __forceinline__ float rectified(float y, int relu) { return relu && y <= 0.0f ? 0.0f : y; }

// The gradient that a kernel reads or writes instead of dy if it takes in the backward pass of a relu with output y.
__device__ __forceinline__ float masked(float y, float dy, int relu) { return relu && !(y > 0.0f) ? 0.0f : dy; }

// Sum over a warp; every lane gets the same bits.
__device__ __forceinline__ float warp_sum(float x) {
    for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(0xffffffffu, x, bits);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int bits = 16; bits > 0; bits /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bits));
    return x;
}

// Sum over a block of whole warps; every thread gets the same bits.
__device__ inline float block_sum(float x) {
    using Parts = float[32];
    SHARED(Parts, parts);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return warp_sum(lane < (int)blockDim.x / 32 ? parts[lane] : 0.0f);
}
__device__ inline float block_max(float x) {
    using Parts = float[32];
    SHARED(Parts, parts);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) parts[warp] = x;
    __syncthreads();
    return warp_max(lane < (int)blockDim.x / 32 ? parts[lane] : parts[0]);
}
