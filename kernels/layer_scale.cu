// A factor for each channel: y = w x.
#include "columns.cuh"

template <typename T>
__device__ void layer_scale_apply(
    const T* x,      // (n / c, c)
    const float* w,  // (c)
    T* y,            // (n / c, c)
    long long n, int c) {
    each_run<T>(n, c, [&](auto size, long long i) {
        constexpr int V = decltype(size)::value;
        const Run<T, V> run = load_run<V>(x + i);
        const int channel = (int)(i % c);
        float values[V];
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = to_float(run.at[j]) * w[channel + j];
        store_run(y + i, values);
    }, x, y);
}
KERNEL(layer_scale_apply, f32, bf16)

// The gradients of the factors of 32 channels (grid x) over a part of the rows (grid y).
template <typename T>
__device__ void layer_scale_sums(
    const T* x,   // (rows, c)
    const T* dy,  // (rows, c)
    float* sums,  // (parts, c)
    long long rows, int c, int rows_per_part) {
    const long long begin = (long long)blockIdx.y * rows_per_part, end = min(rows, begin + rows_per_part);
    const float sum = column_sum_of(blockIdx.x, begin, end, c, [&](long long row, long long column) {
        return to_float(x[row * c + column]) * to_float(dy[row * c + column]);
    });
    const long long column = blockIdx.x * 32ll + threadIdx.x;
    if (threadIdx.x < 32 && column < c) sums[blockIdx.y * (long long)c + column] = sum;
}
KERNEL(layer_scale_sums, f32, bf16)
