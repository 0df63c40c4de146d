// Mean of each channel over the image. Forward: a block sums 32 channels of one sample (grid x:
// sample after sample, of each the channels).
#include "block.cuh"

template <typename T> __device__ void mean_y(const T* x, T* y, int pixels, int c, float share) {
    using Parts = float[8][33];
    SHARED(Parts, parts);
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32, across = (c + 31) / 32;
    const int sample = blockIdx.x / across, channel = blockIdx.x % across * 32 + lane;
    x += (long long)sample * pixels * c;
    float sum = 0.0f;
    if (channel < c)
        for (int pixel = group; pixel < pixels; pixel += 8) sum += to_float(x[(long long)pixel * c + channel]);
    parts[group][lane] = sum;
    __syncthreads();
    if (group > 0 || channel >= c) return;
    for (int i = 1; i < 8; ++i) sum += parts[i][lane];
    y[(long long)sample * c + channel] = from_float<T>(sum * share);
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
