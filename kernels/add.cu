// Sum of two tensors: y = a + b. Further inputs are added to y in place.
#include "block.cuh"

template <typename T> __device__ void add_y(const T* a, const T* b, T* y, long long n, int relu) {
    map_packs(y, n, [=](float a, float b) { return rectified(a + b, relu); }, a, b);
}

extern "C" __global__ void __launch_bounds__(256) add_forward(
    const float* a,  // (n)
    const float* b,  // (n)
    float* y,  // (n), may be a
    long long n, int relu) {
    add_y(a, b, y, n, relu);
}

extern "C" __global__ void __launch_bounds__(256) add_forward_bf16(
    const __nv_bfloat16* a,  // (n)
    const __nv_bfloat16* b,  // (n)
    __nv_bfloat16* y,  // (n), may be a
    long long n, int relu) {
    add_y(a, b, y, n, relu);
}
