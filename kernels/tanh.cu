// Hyperbolic tangent: y = tanh(x); dx = dy (1 - y^2).
#include "block.cuh"

template <typename T>
__device__ void tanh_forward(
    const T* x,  // (n)
    T* y,        // (n)
    long long n) {
    map_elements(y, n, [](float x) { return tanhf(x); }, x);
}
KERNEL(tanh_forward, f32, bf16)

template <typename T>
__device__ void tanh_backward(
    const T* y,   // (n)
    const T* dy,  // (n)
    T* dx,        // (n)
    long long n) {
    map_elements(dx, n, [](float y, float dy) { return dy * (1.0f - y * y); }, y, dy);
}
KERNEL(tanh_backward, f32, bf16)
