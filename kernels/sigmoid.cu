// Logistic function: y = 1 / (1 + exp(-x)), written so that exp never overflows; dx = dy y (1 - y).
#include "block.cuh"

__device__ __forceinline__ float logistic(float x) {
    const float e = expf(-fabsf(x));
    return x >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

template <typename T>
__device__ void sigmoid_forward(
    const T* x,  // (n)
    T* y,        // (n)
    long long n) {
    map_elements(y, n, [](float x) { return logistic(x); }, x);
}
KERNEL(sigmoid_forward, f32, bf16)

template <typename T>
__device__ void sigmoid_backward(
    const T* y,   // (n)
    const T* dy,  // (n)
    T* dx,        // (n)
    long long n) {
    map_elements(dx, n, [](float y, float dy) { return dy * y * (1.0f - y); }, y, dy);
}
KERNEL(sigmoid_backward, f32, bf16)
