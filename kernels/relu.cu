// Rectified linear unit: y = max(x, 0); dx = dy where y > 0, else 0.
#include "block.cuh"

template <typename T> __device__ void relu_y(const T* x, T* y, long long n) {
    const long long i = pack_start<T>();
    Pack<T> pack = load_pack(x, i, n);
    for (int j = 0; j < Pack<T>::SIZE; ++j)
        if (!(to_float(pack.at[j]) > 0.0f)) pack.at[j] = from_float<T>(0.0f);
    store_pack(y, i, n, pack);
}

template <typename T> __device__ void relu_dx(const T* y, const T* dy, T* dx, long long n) {
    const long long i = pack_start<T>();
    const Pack<T> output = load_pack(y, i, n);
    Pack<T> pack = load_pack(dy, i, n);
    for (int j = 0; j < Pack<T>::SIZE; ++j)
        if (!(to_float(output.at[j]) > 0.0f)) pack.at[j] = from_float<T>(0.0f);
    store_pack(dx, i, n, pack);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward(
    const float* x,  // (n)
    float* y,        // (n)
    long long n) {
    relu_y(x, y, n);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward_bf16(
    const __nv_bfloat16* x,  // (n)
    __nv_bfloat16* y,        // (n)
    long long n) {
    relu_y(x, y, n);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward(
    const float* y,   // (n)
    const float* dy,  // (n)
    float* dx,        // (n)
    long long n) {
    relu_dx(y, dy, dx, n);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward_bf16(
    const __nv_bfloat16* y,   // (n)
    const __nv_bfloat16* dy,  // (n)
    __nv_bfloat16* dx,        // (n)
    long long n) {
    relu_dx(y, dy, dx, n);
}
