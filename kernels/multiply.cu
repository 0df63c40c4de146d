// Product of a tensor and a gate, which has a value for each element, or one for each sample and channel.
#include "columns.cuh"

template <typename T>
__device__ void multiply_forward(
    const T* x,     // (N, image)
    const T* gate,  // (N, image), or (N, c) if shared
    T* y,           // (N, image)
    long long n, int image, int c, int shared) {
    each_run<T>(n, c, [&](auto size, long long i) {
        constexpr int V = decltype(size)::value;
        const long long sample = i / image;
        const long long at = shared ? sample * c + (int)(i - sample * image) % c : i;
        const Run<T, V> run = load_run<V>(x + i), by = load_run<V>(gate + at);
        float values[V];
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = to_float(run.at[j]) * to_float(by.at[j]);
        store_run(y + i, values);
    }, x, gate, y);
}
KERNEL(multiply_forward, f32, bf16)

// The gradient of a shared gate: a block sums 32 channels of one sample.
template <typename T>
__device__ void multiply_gate(
    const T* x,   // (N, pixels, c)
    const T* dy,  // (N, pixels, c)
    T* dg,        // (N, c)
    int pixels, int c) {
    const int across = (c + 31) / 32, sample = blockIdx.x / across, block = blockIdx.x % across;
    const long long first = (long long)sample * pixels * c;
    const float sum = column_sum_of(block, 0, pixels, c, [&](long long row, long long column) {
        const long long i = first + row * c + column;
        return to_float(x[i]) * to_float(dy[i]);
    });
    const int channel = block * 32 + threadIdx.x;
    if (threadIdx.x < 32 && channel < c) dg[(long long)sample * c + channel] = from_float<T>(sum);
}
KERNEL(multiply_gate, f32, bf16)
