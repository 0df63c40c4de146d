// Kernels with one planted fault each; the tests expect every one to be caught.
#include "block.cuh"

using Floats = float[64];

extern "C" __global__ void __launch_bounds__(64) fine(float* x /* (64) */, float* y /* (64) */) {
    SHARED(Floats, s);
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) missing_barrier(float* x, float* y) {
    SHARED(Floats, s);
    s[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) unwritten_output(float* x, float* y) {
    if (threadIdx.x != 17) y[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) unwritten_shared(float* x, float* y) {
    SHARED(Floats, s);
    if (threadIdx.x != 17) s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) outside_global(float* x, float* y) {
    y[threadIdx.x + 1] = x[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) outside_shared(float* x, float* y) {
    SHARED(Floats, s);
    s[threadIdx.x + 1] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) outside_dynamic(float* x, float* y) {
    DYNAMIC_SHARED(float, s);
    s[threadIdx.x + 1] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) different_barriers(float* x, float* y) {
    if (threadIdx.x < 32) {
        __syncthreads();
        y[threadIdx.x] = x[threadIdx.x];
    } else {
        y[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(64) half_a_warp(float* x, float* y) {
    float v = x[threadIdx.x];
    if (threadIdx.x < 16) v += __shfl_xor_sync(0xffffffffu, v, 1);
    else __syncthreads();
    y[threadIdx.x] = v;
}

extern "C" __global__ void __launch_bounds__(64) exited_lane(float* x, float* y) {
    if (threadIdx.x % 32 >= 20) return;
    y[threadIdx.x] = x[threadIdx.x] + __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
}

extern "C" __global__ void __launch_bounds__(64) exited_at_barrier(float* x, float* y) {
    if (threadIdx.x == 63) return;
    __syncthreads();
    y[threadIdx.x] = x[threadIdx.x];
}
