// Mean of each channel over the image. Forward: a block sums 32 channels of one sample (grid x:
// sample after sample, of each the channels).
#include "columns.cuh"

template <typename T> __device__ void mean_y(const T* x, T* y, int pixels, int c, float share) {
    const int across = (c + 31) / 32, sample = blockIdx.x / across, block = blockIdx.x % across;
    const float sum = column_sum(x + (long long)sample * pixels * c, block, 0, pixels, c);
    const int channel = block * 32 + threadIdx.x;
    if (threadIdx.x < 32 && channel < c) y[(long long)sample * c + channel] = from_float<T>(sum * share);
}

template <typename T> __device__ void mean_dx(const T* dy, T* dx, long long n, int pixels, int c, float share) {
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

extern "C" __global__ void __launch_bounds__(256) global_avg_pool_forward(
    const float* x,  // (N, pixels, C)
    float* y,  // (N, C)
    int pixels, int c, float share) {
    mean_y(x, y, pixels, c, share);
}

extern "C" __global__ void __launch_bounds__(256) global_avg_pool_forward_bf16(
    const __nv_bfloat16* x,  // (N, pixels, C)
    __nv_bfloat16* y,  // (N, C)
    int pixels, int c, float share) {
    mean_y(x, y, pixels, c, share);
}

extern "C" __global__ void __launch_bounds__(256) global_avg_pool_backward(
    const float* dy,  // (N, C)
    float* dx,  // (N, pixels, C)
    long long n, int pixels, int c, float share) {
    mean_dx(dy, dx, n, pixels, c, share);
}

extern "C" __global__ void __launch_bounds__(256) global_avg_pool_backward_bf16(
    const __nv_bfloat16* dy,  // (N, C)
    __nv_bfloat16* dx,  // (N, pixels, C)
    long long n, int pixels, int c, float share) {
    mean_dx(dy, dx, n, pixels, c, share);
}
