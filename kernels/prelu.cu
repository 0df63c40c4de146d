// Rectified linear unit with learned slopes: y = x where x > 0, otherwise w x. There is one slope, or one for each channel.
#include "columns.cuh"

template <typename T>
__device__ void prelu_forward(
    const T* x,      // (n / c, c)
    const float* w,  // (slopes)
    T* y,            // (n / c, c)
    long long n, int c, int slopes) {
    each_run<T>(n, c, [&](auto size, long long i) {
        constexpr int V = decltype(size)::value;
        const Run<T, V> run = load_run<V>(x + i);
        float values[V];
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float v = to_float(run.at[j]);
            values[j] = v > 0.0f ? v : w[slopes == 1 ? 0 : (int)((i + j) % c)] * v;
        }
        store_run(y + i, values);
    }, x, y);
}
KERNEL(prelu_forward, f32, bf16)

template <typename T>
__device__ void prelu_backward(
    const T* x,      // (n / c, c)
    const float* w,  // (slopes)
    const T* dy,     // (n / c, c)
    T* dx,           // (n / c, c)
    long long n, int c, int slopes) {
    each_run<T>(n, c, [&](auto size, long long i) {
        constexpr int V = decltype(size)::value;
        const Run<T, V> run = load_run<V>(x + i), above = load_run<V>(dy + i);
        float values[V];
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float d = to_float(above.at[j]);
            values[j] = to_float(run.at[j]) > 0.0f ? d : w[slopes == 1 ? 0 : (int)((i + j) % c)] * d;
        }
        store_run(dx + i, values);
    }, x, dy, dx);
}
KERNEL(prelu_backward, f32, bf16)

// The gradients of the slopes of 32 channels (grid x) over a part of the rows (grid y).
template <typename T>
__device__ void prelu_slopes(
    const T* x,   // (rows, c)
    const T* dy,  // (rows, c)
    float* sums,  // (parts, c)
    long long rows, int c, int rows_per_part) {
    const long long begin = (long long)blockIdx.y * rows_per_part, end = min(rows, begin + rows_per_part);
    const float sum = column_sum_of(blockIdx.x, begin, end, c, [&](long long row, long long column) {
        const float v = to_float(x[row * c + column]);
        return v > 0.0f ? 0.0f : v * to_float(dy[row * c + column]);
    });
    const long long column = blockIdx.x * 32ll + threadIdx.x;
    if (threadIdx.x < 32 && column < c) sums[blockIdx.y * (long long)c + column] = sum;
}
KERNEL(prelu_slopes, f32, bf16)
