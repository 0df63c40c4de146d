// What every kernel file builds on: shared memory, element types, 16-byte accesses, reductions in a fixed order.
#pragma once
#ifndef EMULATED
#include <cuda_bf16.h>
#define SHARED(type, name) __shared__ type name
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// The elements that one thread of an element-wise kernel treats, read and written as 16 bytes.
template <typename T> struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T at[SIZE];
};

template <typename T> __device__ __forceinline__ long long pack_start() {
    return ((long long)blockIdx.x * blockDim.x + threadIdx.x) * Pack<T>::SIZE;
}
template <typename T> __device__ __forceinline__ Pack<T> load_pack(const T* x, long long i, long long n) {
    Pack<T> pack;
    if (i + Pack<T>::SIZE <= n && (unsigned long long)(x + i) % 16 == 0) return *(const Pack<T>*)(x + i);
    for (int j = 0; j < Pack<T>::SIZE; ++j) pack.at[j] = i + j < n ? x[i + j] : from_float<T>(0.0f);
    return pack;
}
template <typename T> __device__ __forceinline__ void store_pack(T* y, long long i, long long n, const Pack<T>& pack) {
    if (i + Pack<T>::SIZE <= n && (unsigned long long)(y + i) % 16 == 0) {
        *(Pack<T>*)(y + i) = pack;
        return;
    }
    for (int j = 0; j < Pack<T>::SIZE; ++j)
        if (i + j < n) y[i + j] = pack.at[j];
}

// y[i] = f(x[i], ...) for the n elements, one pack per thread.
template <typename T, class F, class... X>
__device__ __forceinline__ void map_packs(T* y, long long n, const F& f, const X*... x) {
    const long long i = pack_start<T>();
    if (i >= n) return;
    const auto map = [&](const auto&... packs) {
        Pack<T> result;
        for (int j = 0; j < Pack<T>::SIZE; ++j) result.at[j] = from_float<T>(f(to_float(packs.at[j])...));
        store_pack(y, i, n, result);
    };
    map(load_pack(x, i, n)...);
}

// What a kernel writes in place of y when the layer after it is a relu.
__device__ __forceinline__ float rectified(float y, int relu) { return relu && !(y > 0.0f) ? 0.0f : y; }

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
