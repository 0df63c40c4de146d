// Mean of each channel over the image. In the forward pass, a block sums 32 channels of one sample; grid x counts the
// samples and, within each sample, the blocks of channels.
#include "columns.cuh"

template <typename T>
__device__ void global_avg_pool_forward(
    const T* x,  // (N, pixels, C)
    T* y,        // (N, C)
    int pixels, int c, float share) {
    const int across = (c + 31) / 32, sample = blockIdx.x / across, block = blockIdx.x % across;
    const float sum = column_sum(x + (long long)sample * pixels * c, block, 0, pixels, c);
    const int channel = block * 32 + threadIdx.x;
    if (threadIdx.x < 32 && channel < c) y[(long long)sample * c + channel] = from_float<T>(sum * share);
}
KERNEL(global_avg_pool_forward, f32, bf16)

template <typename T>
__device__ void global_avg_pool_backward(
    const T* dy,  // (N, C)
    T* dx,        // (N, pixels, C)
    long long n, int pixels, int c, float share) {
    const auto one = [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        const int image = pixels * c;
        const long long sample = i / image;
        const Run<T, N> run = load_run<N>(dy + sample * c + (int)(i - sample * image) % c);
        float values[N];
#pragma unroll
        for (int j = 0; j < N; ++j) values[j] = to_float(run.at[j]) * share;
        store_run(dx + i, values);
    };
    each_run<T>(n, c, one, dy, dx);
}
KERNEL(global_avg_pool_backward, f32, bf16)
