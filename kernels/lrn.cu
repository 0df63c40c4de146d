// Local response normalisation: s[c] = k + scale sum of x^2 over the window of c, y = x s^-beta (scale = alpha / size).
// The window of c is c - size / 2 ..= c + (size - 1) / 2, cut at the edges of its group of channels.
#include "pool.cuh"

// s^-beta; square roots are many times faster than a power.
__device__ __forceinline__ float power(float s, float beta) {
    if (beta == 0.75f) {
        const float root = sqrtf(s);
        return 1.0f / (root * sqrtf(root));
    }
    return beta == 0.5f ? 1.0f / sqrtf(s) : powf(s, -beta);
}

template <typename T>
__device__ void lrn_y(const T* x, T* y, T* kept, long long n, int group, int size, float scale, float beta, float k) {
    const long long i = thread_index();
    if (i >= n) return;
    const int c = (int)(i % group);
    float sum = 0.0f;
    for (int d = max(c - size / 2, 0); d <= min(c + (size - 1) / 2, group - 1); ++d) {
        const float v = to_float(x[i - c + d]);
        sum += v * v;
    }
    const float s = k + scale * sum;
    if (kept) kept[i] = from_float<T>(s);
    y[i] = from_float<T>(to_float(x[i]) * power(s, beta));
}

// slope = 2 scale beta; the windows that hold c are those of c - (size - 1) / 2 ..= c + size / 2.
template <typename T>
__device__ void lrn_dx(const T* x, const T* kept, const T* dy, T* dx, long long n, int group, int size, float slope,
                       float beta) {
    const long long i = thread_index();
    if (i >= n) return;
    const int c = (int)(i % group);
    float sum = 0.0f;
    for (int d = max(c - (size - 1) / 2, 0); d <= min(c + size / 2, group - 1); ++d) {
        const long long at = i - c + d;
        const float s = to_float(kept[at]);
        sum += to_float(dy[at]) * to_float(x[at]) * power(s, beta) / s;
    }
    dx[i] = from_float<T>(to_float(dy[i]) * power(to_float(kept[i]), beta) - slope * to_float(x[i]) * sum);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward(
    const float* x,  // (pixels, C), C a multiple of group
    float* y,  // (pixels, C)
    float* kept,  // (pixels, C), or null: s
    long long n, int group, int size, float scale, float beta, float k) {
    lrn_y(x, y, kept, n, group, size, scale, beta, k);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward_bf16(
    const __nv_bfloat16* x,  // (pixels, C), C a multiple of group
    __nv_bfloat16* y,  // (pixels, C)
    __nv_bfloat16* kept,  // (pixels, C), or null: s
    long long n, int group, int size, float scale, float beta, float k) {
    lrn_y(x, y, kept, n, group, size, scale, beta, k);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward(
    const float* x,  // (pixels, C)
    const float* kept,  // (pixels, C): s
    const float* dy,  // (pixels, C)
    float* dx,  // (pixels, C)
    long long n, int group, int size, float slope, float beta) {
    lrn_dx(x, kept, dy, dx, n, group, size, slope, beta);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_bf16(
    const __nv_bfloat16* x,  // (pixels, C)
    const __nv_bfloat16* kept,  // (pixels, C): s
    const __nv_bfloat16* dy,  // (pixels, C)
    __nv_bfloat16* dx,  // (pixels, C)
    long long n, int group, int size, float slope, float beta) {
    lrn_dx(x, kept, dy, dx, n, group, size, slope, beta);
}
