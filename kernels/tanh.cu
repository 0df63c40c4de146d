// Hyperbolic tangent: y = tanh(x); dx = dy (1 - y^2).
#include "block.cuh"

template <typename T> __device__ void tanh_y(const T* x, T* y, long long n) {
    map_packs(y, n, [](float x) { return tanhf(x); }, x);
}

template <typename T> __device__ void tanh_dx(const T* y, const T* dy, T* dx, long long n) {
    map_packs(dx, n, [](float y, float dy) { return dy * (1.0f - y * y); }, y, dy);
}

extern "C" __global__ void __launch_bounds__(256) tanh_forward(
    const float* x,  // (n)
    float* y,  // (n)
    long long n) {
    tanh_y(x, y, n);
}

extern "C" __global__ void __launch_bounds__(256) tanh_backward(
    const float* y,  // (n)
    const float* dy,  // (n)
    float* dx,  // (n)
    long long n) {
    tanh_dx(y, dy, dx, n);
}

extern "C" __global__ void __launch_bounds__(256) tanh_forward_bf16(
    const __nv_bfloat16* x,  // (n)
    __nv_bfloat16* y,  // (n)
    long long n) {
    tanh_y(x, y, n);
}

extern "C" __global__ void __launch_bounds__(256) tanh_backward_bf16(
    const __nv_bfloat16* y,  // (n)
    const __nv_bfloat16* dy,  // (n)
    __nv_bfloat16* dx,  // (n)
    long long n) {
    tanh_dx(y, dy, dx, n);
}
