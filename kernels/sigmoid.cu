// Logistic function: y = 1 / (1 + exp(-x)), written so that exp never overflows; dx = dy y (1 - y).
#include "block.cuh"

__device__ __forceinline__ float logistic(float x) {
    const float e = expf(-fabsf(x));
    return x >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

template <typename T> __device__ void sigmoid_y(const T* x, T* y, long long n) {
    map_packs(y, n, [](float x) { return logistic(x); }, x);
}

template <typename T> __device__ void sigmoid_dx(const T* y, const T* dy, T* dx, long long n) {
    map_packs(dx, n, [](float y, float dy) { return dy * y * (1.0f - y); }, y, dy);
}

extern "C" __global__ void __launch_bounds__(256) sigmoid_forward(
    const float* x,  // (n)
    float* y,  // (n)
    long long n) {
    sigmoid_y(x, y, n);
}

extern "C" __global__ void __launch_bounds__(256) sigmoid_backward(
    const float* y,  // (n)
    const float* dy,  // (n)
    float* dx,  // (n)
    long long n) {
    sigmoid_dx(y, dy, dx, n);
}

extern "C" __global__ void __launch_bounds__(256) sigmoid_forward_bf16(
    const __nv_bfloat16* x,  // (n)
    __nv_bfloat16* y,  // (n)
    long long n) {
    sigmoid_y(x, y, n);
}

extern "C" __global__ void __launch_bounds__(256) sigmoid_backward_bf16(
    const __nv_bfloat16* y,  // (n)
    const __nv_bfloat16* dy,  // (n)
    __nv_bfloat16* dx,  // (n)
    long long n) {
    sigmoid_dx(y, dy, dx, n);
}
