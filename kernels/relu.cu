// Rectified linear unit: y = max(x, 0); dx = dy where y > 0, else 0.
#include "block.cuh"

template <typename T>
__device__ void relu_forward(
    const T* x,  // (n)
    T* y,        // (n)
    long long n) {
    map_elements(y, n, [](float x) { return x > 0.0f ? x : 0.0f; }, x);
}
KERNEL(relu_forward, f32, bf16)

template <typename T>
__device__ void relu_backward(
    const T* y,   // (n)
    const T* dy,  // (n)
    T* dx,        // (n)
    long long n) {
    map_elements(dx, n, [](float y, float dy) { return y > 0.0f ? dy : 0.0f; }, y, dy);
}
KERNEL(relu_backward, f32, bf16)
