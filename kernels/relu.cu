// Rectified linear unit: y = max(x, 0); dx = dy where y > 0, else 0.
#include "block.cuh"

template <typename T> __device__ void relu_y(const T* x, T* y, long long n) {
    map_packs(y, n, [](float x) { return x > 0.0f ? x : 0.0f; }, x);
}

template <typename T> __device__ void relu_dx(const T* y, const T* dy, T* dx, long long n) {
    map_packs(dx, n, [](float y, float dy) { return y > 0.0f ? dy : 0.0f; }, y, dy);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward(
    const float* x,  // (n)
    float* y,  // (n)
    long long n) {
    relu_y(x, y, n);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward(
    const float* y,  // (n)
    const float* dy,  // (n)
    float* dx,  // (n)
    long long n) {
    relu_dx(y, dy, dx, n);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward_bf16(
    const __nv_bfloat16* x,  // (n)
    __nv_bfloat16* y,  // (n)
    long long n) {
    relu_y(x, y, n);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward_bf16(
    const __nv_bfloat16* y,  // (n)
    const __nv_bfloat16* dy,  // (n)
    __nv_bfloat16* dx,  // (n)
    long long n) {
    relu_dx(y, dy, dx, n);
}
