// Weight normalisation: w = g v / |v| for each of the rows of a weight (Salimans and Kingma 2016). A row that is 0 stays 0.
#include "block.cuh"

// dots[row] = sum of a[row] b[row]; a warp for each row.
__device__ void weight_norm_dots(
    const float* a,  // (rows, k)
    const float* b,  // (rows, k)
    float* dots,     // (rows)
    int rows, int k) {
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = 0.0f;
    for (int i = lane; i < k; i += 32) sum += a[(long long)row * k + i] * b[(long long)row * k + i];
    sum = warp_sum(sum);
    if (lane == 0) dots[row] = sum;
}
KERNEL(weight_norm_dots)

__device__ __forceinline__ float inverse_norm(float square) { return square > 0.0f ? 1.0f / sqrtf(square) : square * 0.0f; }

template <typename T>
__device__ void weight_norm_apply(
    const float* v,        // (n / k, k)
    const float* g,        // (n / k)
    const float* squares,  // (n / k): |v|^2
    T* w,                  // (n / k, k)
    long long n, int k) {
    const long long first = vector_start<T>();
    for (long long i = first; i < min(n, first + Vector<T>::SIZE); ++i) {
        const long long row = i / k;
        w[i] = from_float<T>(v[i] * (g[row] * inverse_norm(squares[row])));
    }
}
KERNEL(weight_norm_apply, f32, bf16)

// dv = g / |v| (dw - v (dw v) / |v|^2), dg = dw v / |v|.
__device__ void weight_norm_backward(
    const float* v,        // (n / k, k)
    const float* g,        // (n / k)
    const float* squares,  // (n / k): |v|^2
    const float* dw,       // (n / k, k)
    const float* dots,     // (n / k): dw v
    float* dv,             // (n / k, k)
    float* dg,             // (n / k)
    long long n, int k) {
    const long long i = thread_index();
    if (i >= n) return;
    const long long row = i / k;
    const float inverse = inverse_norm(squares[row]), along = dots[row] * inverse;
    dv[i] = g[row] * inverse * (dw[i] - v[i] * inverse * along);
    if (i == row * k) dg[row] = along;
}
KERNEL(weight_norm_backward)
